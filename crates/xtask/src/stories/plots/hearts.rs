//! Plots about friendship, truth, quarrels and feelings.

use crate::stories::Story;
use crate::stories::telling::roles;
use crate::stories::world::At;

/// Someone new and shy finds a friend.
pub(super) fn newcomer(s: &mut Story) {
    let a = s.hero();
    if s.rng.chance(60) {
        s.make(a, "shy");
    }
    s.open();
    s.tell("alone.new", roles![p: At(0)]);
    s.maybe(60, "alone.try", &[]);
    s.feel(a, "lonely");
    s.scene();
    s.maybe(50, "oneday", roles![p: At(0)]);
    let b = s.friend();
    s.tell("alone.meet", roles![b: b]);
    s.maybe(50, "meet.trait", roles![b: b]);
    s.tell("alone.talk", roles![b: b]);
    s.scene();
    s.tell("alone.play", roles![b: b]);
    s.maybe(60, "alone.play", roles![b: b]);
    if s.room() {
        s.join(b);
        let p = s.a_place("outdoors");
        s.go(p, 50);
        s.maybe(60, "share.food", roles![b: b]);
        s.part();
    }
    s.ally = Some(b);
    s.maybe(50, "alone.others", roles![b: b]);
    s.maybe(60, "befriend", roles![b: b]);
    s.note("friend");
    s.end();
}

/// Two friends quarrel and make up.
pub(super) fn quarrel(s: &mut Story) {
    let a = s.hero();
    s.open();
    let b = s.old_friend();
    s.maybe(60, "alone.play", roles![b: b]);
    s.scene();
    s.tell("quarrel.why", roles![b: b]);
    s.tell("quarrel.words", roles![b: b]);
    s.maybe(50, "feel.angry", &[]);
    s.tell("quarrel.apart", roles![b: b]);
    s.scene();
    s.tell("quarrel.alone", roles![b: b]);
    s.maybe(50, "quarrel.alone", roles![b: b]);
    let mood = *s.rng.pick(&["lonely", "sad", "ashamed"]);
    s.feel(a, mood);
    if s.rng.chance(60) {
        let relation = *s.rng.pick(&["mother", "grandmother", "father", "grandfather"]);
        let c = s.kin(a, relation);
        s.tell("quarrel.kin", roles![b: b, c: c]);
    }
    s.scene();
    s.tell("quarrel.go", roles![b: b]);
    s.tell("quarrel.sorry", roles![b: b]);
    s.maybe(60, "share.food", roles![b: b]);
    s.note("friend");
    s.note("sorry");
    s.end();
}

/// Who cries for help as a joke is not believed when it is true.
pub(super) fn false_alarm(s: &mut Story) {
    let a = s.hero();
    s.make(a, "playful");
    s.open();
    let b = s.old_friend();
    s.one_day();
    let (x, y) = *s.rng.pick(&[
        ("A wolf", "a big gray wolf"),
        ("Fire", "smoke and flames behind the barn"),
        ("A bear", "a huge, hungry bear"),
        ("Water", "brown water that rose and rose"),
        ("A fox", "a fox beside the hen house"),
    ]);
    s.tell("lie.tell", roles![x: x]);
    s.tell("lie.come", &[]);
    s.tell("lie.laugh", &[]);
    s.maybe(60, "lie.again", roles![b: b]);
    s.scene();
    s.tell("lie.real", roles![y: y]);
    s.feel(a, "afraid");
    s.tell("lie.nobody", &[]);
    s.tell("lie.friend", roles![b: b]);
    s.tell("lie.sorry", roles![b: b]);
    s.note("truth");
    s.end();
}

/// Someone else is blamed, until the one who did it speaks.
pub(super) fn blamed(s: &mut Story) {
    let a = s.hero();
    s.open();
    let c = s.old_friend();
    s.one_day();
    let relation = *s.rng.pick(&["mother", "grandmother", "father", "grandfather"]);
    let b = s.kin(a, relation);
    let x = *s.rng.pick(&[
        "knocked over the big milk jug",
        "broke the blue window",
        "left the gate open, and all the hens ran out",
        "let the soup burn",
        "dropped the basket with all the eggs",
        "spilled ink on the white cloth",
        "stepped on the young cabbages",
        "broke a leg off the old chair",
        "tore the new curtain",
    ]);
    s.tell("blame.do", roles![x: x]);
    s.maybe(40, "feel.afraid", &[]);
    s.tell("blame.ask", roles![b: b, c: c]);
    s.scene();
    s.tell("blame.other", roles![c: c]);
    s.feel(a, "ashamed");
    s.maybe(50, "hide.guilt", &[]);
    s.scene();
    s.tell("blame.truth", roles![b: b, c: c]);
    s.tell("blame.end", roles![b: b, c: c]);
    s.note("truth");
    s.end();
}

/// A friend has a new friend, and that hurts, until three play together.
pub(super) fn envy(s: &mut Story) {
    let a = s.hero();
    s.open();
    let b = s.old_friend();
    s.scene();
    let c = s.friend();
    s.tell("envy.new", roles![b: b, c: c]);
    s.maybe(60, "meet.trait", roles![b: c]);
    s.tell("envy.feel", roles![b: b, c: c]);
    s.tell("envy.mean", roles![c: c]);
    s.maybe(50, "feel.angry", &[]);
    if s.room() && s.rng.chance(60) {
        s.feel(a, "lonely");
    }
    s.pass(40);
    s.scene();
    s.tell("envy.turn", roles![c: c]);
    s.maybe(50, "feel.ashamed", &[]);
    s.tell("envy.good", roles![c: c]);
    s.maybe(50, "alone.play", roles![b: c]);
    s.note("friend");
    s.note("kind");
    s.end();
}

/// Boasting ends in a splash.
pub(super) fn boast(s: &mut Story) {
    let a = s.hero();
    s.make(a, "proud");
    s.open();
    let b = s.old_friend();
    s.one_day();
    let x = *s.rng.pick(&["jump", "climb", "run", "dance", "balance", "leap over a ditch", "walk on stilts", "turn cartwheels"]);
    s.tell("boast.say", roles![x: x]);
    s.tell("boast.others", roles![b: b]);
    s.maybe(60, "boast.dare", roles![x: x]);
    s.scene();
    s.tell("boast.fall", &[]);
    s.feel(a, "ashamed");
    s.tell("boast.help", roles![b: b]);
    s.tell("boast.learn", roles![b: b]);
    s.note("friend");
    s.note("humble");
    s.end();
}

/// A friend is ill, and a herb grows far away.
pub(super) fn sick(s: &mut Story) {
    let a = s.hero();
    s.open();
    let b = s.old_friend();
    s.scene();
    s.tell("sick.news", roles![b: b]);
    s.feel(a, "worried");
    let c = s.elder();
    let tag = *s.rng.pick(&["high", "trees", "water", "wide"]);
    let p = s.a_place(tag);
    let (x, y) = *s.rng.pick(&[
        ("Wild mint", "wild mint"),
        ("Willow bark", "willow bark"),
        ("Lime flowers", "lime flowers"),
        ("Sage", "sage"),
        ("Elder flowers", "elder flowers"),
        ("Thyme", "thyme"),
        ("Mountain clover", "mountain clover"),
    ]);
    s.tell("sick.need", roles![b: b, c: c, x: x, y: y, p: p]);
    s.scene();
    s.trek(p);
    s.tell("sick.found", roles![p: p, y: y]);
    s.maybe(60, "home", &[]);
    s.pass(40);
    s.scene();
    s.tell("sick.tea", roles![b: b]);
    s.maybe(70, "sick.stay", roles![b: b]);
    s.tell("sick.well", roles![b: b]);
    s.tell("thanks", roles![a: b, b: a]);
    s.note("kind");
    s.end();
}

/// The grumpy one only lacks a friend.
pub(super) fn grump(s: &mut Story) {
    let a = s.hero();
    s.make(a, "kind");
    s.open();
    let p = s.a_place("");
    let c = s.elder();
    s.make(c, "grumpy");
    s.tell("grump.place", roles![c: c, p: p]);
    s.maybe(50, "meet.trait", roles![b: c]);
    s.scene();
    s.tell("grump.meet", roles![c: c]);
    s.tell("grump.first", roles![c: c]);
    s.maybe(60, "grump.first", roles![c: c]);
    s.scene();
    s.tell("grump.second", roles![c: c]);
    s.tell("grump.why", roles![c: c]);
    s.maybe(50, "share.food", roles![b: c]);
    s.tell("grump.end", roles![c: c]);
    s.ally = Some(c);
    s.note("kind");
    s.end();
}

/// Before an audience: fear, a friend's advice, applause.
pub(super) fn stage(s: &mut Story) {
    let a = s.hero();
    s.make(a, "shy");
    s.open();
    let b = s.old_friend();
    s.scene();
    let x = *s.rng.pick(&[
        "sing",
        "dance",
        "tell a story",
        "play the flute",
        "say a poem",
        "play the fiddle",
        "juggle",
        "do magic tricks",
        "beat the drum",
    ]);
    s.tell("stage.plan", roles![b: b, x: x]);
    s.tell("stage.fear", &[]);
    s.maybe(50, "feel.worried", &[]);
    s.tell("stage.train", roles![b: b]);
    s.maybe(50, "feel.afraid", &[]);
    s.tell("stage.tip", roles![b: b]);
    s.pass(0);
    s.pass(0);
    s.scene();
    s.tell("stage.go", &[]);
    s.tell("stage.do", roles![b: b]);
    s.tell("stage.clap", &[]);
    s.feel(a, "proud");
    s.maybe(60, "thanks", roles![b: b]);
    s.note("friend");
    s.note("brave");
    s.end();
}

/// A night without sleep.
pub(super) fn sleepless(s: &mut Story) {
    let a = s.hero();
    s.open();
    s.before();
    s.world.time = "night";
    s.scene();
    s.tell("sleep.cannot", &[]);
    s.tell("sleep.try", &[]);
    s.maybe(60, "sleep.try", &[]);
    s.maybe(50, "nature", &[]);
    if s.rng.chance(30) {
        s.tell("suddenly", &[]);
        s.feel(a, "afraid");
        s.tell("sleep.noise", &[]);
    }
    s.scene();
    let b = if s.rng.chance(50) {
        s.friend()
    } else {
        let relation = *s.rng.pick(&["mother", "grandmother", "father", "big sister", "big brother"]);
        s.kin(a, relation)
    };
    s.tell("sleep.visit", roles![b: b]);
    s.maybe(30, "comfort", roles![b: b]);
    s.tell("sleep.tip", roles![b: b]);
    s.maybe(50, "sleep.tip", roles![b: b]);
    s.tell("sleep.end", roles![b: b]);
}

/// Visits to someone old who is alone.
pub(super) fn visits(s: &mut Story) {
    let a = s.hero();
    s.open();
    let p = s.a_place("");
    let c = s.elder();
    s.make(c, "kind");
    s.scene();
    s.tell("old.visit", roles![c: c, p: p]);
    s.tell("old.idea", &[]);
    s.tell("old.bring", roles![c: c]);
    s.tell("old.story", roles![c: c]);
    s.maybe(60, "old.learn", roles![c: c]);
    s.pass(40);
    s.tell("thanks", roles![a: c, b: a]);
    s.maybe(60, "feel.happy", roles![a: a]);
    s.tell("old.end", roles![c: c]);
    s.ally = Some(c);
    s.note("kind");
    s.end();
}

/// A friend moves away.
pub(super) fn goodbye(s: &mut Story) {
    let a = s.hero();
    s.open();
    let b = s.old_friend();
    s.maybe(60, "alone.play", roles![b: b]);
    s.scene();
    s.tell("bye.news", roles![b: b]);
    s.feel(a, "sad");
    s.maybe(50, "comfort", roles![b: b]);
    s.tell("bye.last", roles![b: b]);
    s.tell("bye.gift", roles![b: b]);
    s.scene();
    s.tell("bye.go", roles![b: b]);
    s.feel(a, "lonely");
    s.tell("bye.letter", roles![b: b]);
    s.feel(a, "happy");
    s.tell("bye.end", roles![b: b]);
}
