//! Plots about deeds: learning, racing, rescuing, building, carrying, finding out.

use crate::stories::Story;
use crate::stories::telling::roles;
use crate::stories::world::At;

/// Something hard is learned, with a teacher and much practice.
pub(super) fn learn(s: &mut Story) {
    let a = s.hero();
    if s.rng.chance(50) {
        s.make(a, "stubborn");
    }
    s.open();
    let mut skills = vec![
        ("jump over the ditch", "jumping over the ditch"),
        ("dance", "dancing"),
        ("whistle", "whistling"),
        ("read", "reading"),
        ("skate on the ice", "skating on the ice"),
        ("climb the old tree", "climbing the old tree"),
        ("juggle", "juggling"),
        ("stand on one leg", "standing on one leg"),
        ("row a boat", "rowing a boat"),
        ("play the flute", "playing the flute"),
        ("write", "writing"),
        ("walk on a rope", "walking on a rope"),
    ];
    if s.world.who(a).is("flies") {
        skills.extend([("fly upside down", "flying upside down"), ("fly over the lake", "flying over the lake")]);
    } else {
        skills.extend([("swim", "swimming"), ("dive", "diving")]);
    }
    let (x, y) = *s.rng.pick(&skills);
    s.tell("learn.wish", roles![x: x, y: y]);
    s.scene();
    if s.rng.chance(60) {
        let b = s.friend();
        s.make(b, "proud");
        s.tell("learn.laugh", roles![b: b, x: x]);
    }
    s.tell("learn.first", &[]);
    let mood = *s.rng.pick(&["sad", "ashamed", "hopeful", "tired"]);
    s.feel(a, mood);
    let c = if s.rng.chance(70) { s.elder() } else { s.friend() };
    s.scene();
    s.tell("learn.teacher", roles![c: c]);
    s.maybe(40, "meet.trait", roles![b: c]);
    s.tell("learn.lesson", roles![c: c]);
    s.tell("learn.practice", &[]);
    s.maybe(60, "learn.practice", &[]);
    s.pass(0);
    s.scene();
    s.tell("learn.can", roles![x: x, y: y]);
    s.feel(a, "happy");
    s.tell("learn.show", roles![c: c]);
    s.note("helped");
    s.note("worked");
    s.end();
}

/// A race, in which something matters more than winning, or patience wins.
pub(super) fn race(s: &mut Story) {
    let a = s.hero();
    s.open();
    s.before();
    let p = s.a_place("outdoors");
    s.scene();
    s.tell("race.news", roles![p: p]);
    let c = s.friend();
    s.make(c, "proud");
    s.tell("race.rival", roles![c: c]);
    s.maybe(50, "feel.worried", &[]);
    s.scene();
    s.tell("race.start", &[]);
    s.tell("race.middle", roles![c: c]);
    s.maybe(50, "race.middle", roles![c: c]);
    if s.rng.chance(60) {
        s.tell("race.fall", roles![c: c]);
        s.tell("race.choice", roles![c: c]);
        s.tell("race.end", roles![c: c]);
        s.maybe(60, "befriend", roles![b: c]);
        s.ally = Some(c);
        s.note("kind");
    } else {
        s.maybe(50, "travel", &[]);
        s.tell("race.slow", roles![c: c]);
        s.feel(a, "happy");
        s.note("worked");
    }
    s.end();
}

/// Someone is stuck and is got out.
pub(super) fn rescue(s: &mut Story) {
    let a = s.hero();
    if s.rng.chance(40) {
        s.make(a, "brave");
    }
    s.open();
    let friend = s.rng.chance(50).then(|| s.old_friend());
    s.one_day();
    let p = s.a_place("outdoors");
    s.go(p, 30);
    s.scene();
    let c = if s.rng.chance(60) { s.friend() } else { s.elder() };
    s.tell("rescue.cry", roles![c: c]);
    s.tell("rescue.talk", roles![c: c]);
    s.tell("rescue.try", &[]);
    s.maybe(50, "think", &[]);
    if let Some(b) = friend {
        s.tell("rescue.fetch", roles![c: c, p: At(0)]);
        s.tell("rescue.helpers", roles![b: b]);
        s.tell("rescue.pull", roles![c: c]);
        s.note("together");
    } else {
        s.tell("rescue.alone", roles![c: c]);
        s.tell("rescue.pull", roles![c: c]);
        s.note("clever");
    }
    s.tell("thanks", roles![a: c, b: a]);
    if friend.is_none() {
        s.ally = Some(c);
    }
    s.maybe(60, "befriend", roles![b: c]);
    s.note("kind");
    s.end();
}

/// A little one has lost the way and is brought home.
pub(super) fn strayed(s: &mut Story) {
    let a = s.hero();
    s.open();
    s.one_day();
    let c = s.friend();
    let p = s.a_place("");
    s.tell("strayed.news", roles![c: c]);
    s.maybe(40, "comfort", roles![a: c, b: a]);
    s.tell("strayed.ask", roles![c: c, p: p]);
    s.tell("strayed.know", roles![c: c]);
    s.join(c);
    s.scene();
    s.tell("setoff", roles![p: p]);
    s.obstacle();
    s.tell("strayed.way", roles![c: c]);
    if s.room() {
        s.obstacle();
    }
    s.world.move_party(p);
    s.part();
    s.pass(50);
    s.scene();
    s.tell("strayed.home", roles![c: c]);
    s.tell("strayed.thanks", roles![c: c]);
    s.feel(a, "proud");
    s.note("kind");
    s.end();
}

/// Something is carried to someone, past temptations.
pub(super) fn errand(s: &mut Story) {
    let a = s.hero();
    s.open();
    let relation = *s.rng.pick(&["mother", "father", "grandmother", "grandfather"]);
    let b = s.kin(a, relation);
    let c = s.elder();
    let p = s.a_place("");
    let x = *s.rng.pick(&[
        "a pot of soup",
        "a warm pie",
        "a jar of honey",
        "a basket of eggs",
        "a loaf of bread",
        "a big cake",
        "a can of milk",
    ]);
    s.one_day();
    s.tell("errand.give", roles![b: b, c: c, p: p, x: x]);
    s.scene();
    s.tell("setoff", roles![p: p]);
    s.maybe(60, "travel", roles![p: p]);
    let d = s.friend();
    s.tell("errand.tempt", roles![c: c, d: d]);
    s.obstacle();
    s.world.move_party(p);
    s.maybe(75, "arrive", roles![p: p]);
    s.scene();
    s.tell("errand.there", roles![c: c, x: x]);
    s.maybe(70, "errand.share", roles![c: c]);
    s.pass(40);
    s.tell("home", &[]);
    s.note("worked");
    s.end();
}

/// Something is baked, with what neighbors give and after a mistake.
pub(super) fn bake(s: &mut Story) {
    let a = s.hero();
    s.open();
    s.one_day();
    let x = *s.rng.pick(&[
        "a cake",
        "an apple pie",
        "a loaf of bread",
        "a berry pie",
        "honey cookies",
        "a plum cake",
        "a ginger cake",
        "a carrot cake",
    ]);
    s.tell("cook.plan", roles![x: x]);
    let mut all = vec![
        ("flour", "a little flour"),
        ("sugar", "a bag of sugar"),
        ("butter", "a piece of butter"),
        ("milk", "a jug of milk"),
        ("honey", "a spoonful of honey"),
        ("yeast", "a bit of yeast"),
        ("cream", "a cup of cream"),
    ];
    s.rng.shuffle(&mut all);
    for i in 0..(1 + s.rng.below(2)) {
        let c = if s.rng.chance(50) { s.elder() } else { s.friend() };
        s.tell("cook.miss", roles![y: all[2 * i].0]);
        s.tell("cook.ask", roles![c: c, y: all[2 * i].0, z: all[2 * i + 1].1]);
        s.maybe(60, "thanks.small", roles![b: c]);
    }
    s.scene();
    s.tell("cook.mix", &[]);
    if s.rng.chance(60) {
        s.tell("cook.burn", &[]);
        s.maybe(50, "feel.sad", &[]);
        s.tell("cook.again", &[]);
        s.tell("cook.mix", &[]);
        s.note("worked");
    }
    s.tell("cook.done", &[]);
    s.pass(40);
    s.scene();
    s.tell("cook.eat", &[]);
    s.feel(a, "happy");
    s.note("shared");
    s.end();
}

/// A storm takes someone's house, and all build a new one.
pub(super) fn storm(s: &mut Story) {
    let a = s.hero();
    s.open();
    let b = s.old_friend();
    s.scene();
    s.world.weather = "wind";
    s.tell("storm.comes", &[]);
    s.maybe(60, "feel.afraid", &[]);
    s.world.time = "morning";
    s.world.weather = "sun";
    s.tell("storm.damage", roles![b: b]);
    s.feel(b, "sad");
    s.scene();
    s.tell("storm.call", roles![b: b]);
    let (c, d) = (s.elder(), s.elder());
    s.tell("storm.build", roles![c: c, d: d]);
    s.tell("storm.build", roles![c: c, d: d]);
    s.maybe(60, "feel.tired", &[]);
    s.scene();
    s.tell("storm.done", &[]);
    s.tell("storm.thanks", roles![b: b]);
    s.world.who_mut(a).mood = "calm";
    s.note("friend");
    s.note("together");
    s.end();
}

/// A sound in the night has a friendly cause.
pub(super) fn noise(s: &mut Story) {
    s.open();
    let b = s.old_friend();
    s.scene();
    s.world.time = "night";
    let p = s.a_place("indoors");
    s.tell("noise.hear", roles![p: p]);
    s.tell("noise.guess", roles![b: b]);
    s.maybe(50, "feel.afraid", &[]);
    if s.rng.chance(50) {
        s.tell("help.offer", roles![b: b]);
        s.join(b);
    }
    s.scene();
    s.tell("noise.go", roles![p: p]);
    s.maybe(50, "nature", &[]);
    s.world.move_party(p);
    s.part();
    let c = s.friend();
    s.tell("noise.see", roles![c: c]);
    s.tell("noise.talk", roles![c: c]);
    s.maybe(50, "share.food", roles![b: c]);
    s.scene();
    s.tell("noise.end", roles![c: c]);
    s.note("brave");
    s.end();
}

/// Something is taken each day; the one who does it is hungry.
pub(super) fn thief(s: &mut Story) {
    let a = s.hero();
    s.make(a, "clever");
    s.open();
    let b = s.old_friend();
    s.scene();
    let p = s.a_place("food");
    let c = s.elder();
    let y = *s.rng.pick(&["berry pie", "cheese", "bread", "plum cake", "apples"]);
    s.tell("thief.gone", roles![p: p, c: c, y: y]);
    s.tell("thief.blame", roles![b: b]);
    s.maybe(50, "think", &[]);
    s.tell("thief.clue", &[]);
    s.feel(a, "curious");
    s.scene();
    s.world.time = "night";
    s.tell("thief.watch", &[]);
    s.maybe(40, "nature", &[]);
    let d = s.friend();
    s.tell("thief.caught", roles![d: d]);
    s.tell("thief.help", roles![d: d]);
    s.tell("thief.end", roles![d: d]);
    s.note("clever");
    s.note("kind");
    s.end();
}

/// A warning is not heeded.
pub(super) fn warned(s: &mut Story) {
    let a = s.hero();
    s.make(a, "curious");
    s.open();
    let relation = *s.rng.pick(&["mother", "grandmother", "father", "grandfather"]);
    let b = s.kin(a, relation);
    let tag = *s.rng.pick(&["water", "dark", "high"]);
    let p = s.a_place(tag);
    s.tell("warn.say", roles![b: b, p: p]);
    s.tell("warn.why", roles![p: p]);
    s.one_day();
    s.maybe(50, "alone", &[]);
    s.tell("warn.go", &[]);
    s.go(p, 20);
    s.maybe(50, "nature", &[]);
    s.scene();
    s.tell("warn.danger", roles![p: p]);
    s.feel(a, "afraid");
    s.tell("warn.call", &[]);
    let c = s.elder_of("strong");
    s.tell("warn.saved", roles![b: b, c: c]);
    s.scene();
    s.tell("warn.home", roles![b: b]);
    s.note("listened");
    s.end();
}

/// Hide-and-seek, in a place too good.
pub(super) fn hidden(s: &mut Story) {
    let a = s.hero();
    s.open();
    let b = s.old_friend();
    s.one_day();
    let p = s.a_place("");
    s.tell("hide.game", roles![b: b, p: p]);
    s.tell("hide.place", roles![p: p]);
    s.tell("hide.wait", &[]);
    s.pass(60);
    s.scene();
    s.tell("hide.search", roles![b: b]);
    s.feel(b, "worried");
    s.pass(30);
    s.scene();
    s.tell("hide.wake", roles![b: b]);
    s.tell("hide.glad", roles![b: b]);
    s.world.who_mut(a).mood = "happy";
    s.note("friend");
    s.end();
}

/// Money is spent on the wrong thing, and earned again.
pub(super) fn market(s: &mut Story) {
    let a = s.hero();
    s.make(a, "dreamy");
    s.open();
    let relation = *s.rng.pick(&["mother", "grandmother", "father", "grandfather"]);
    let b = s.kin(a, relation);
    let x = *s.rng.pick(&[
        "a sack of flour",
        "a new bucket",
        "three loaves of bread",
        "a hen",
        "a jar of salt",
        "a pound of cheese",
        "wool for a blanket",
        "candles",
        "seeds for the garden",
    ]);
    s.one_day();
    s.tell("market.go", roles![b: b, x: x]);
    let p = s.a_place("market");
    s.go(p, 60);
    s.tell("market.tempt", &[]);
    s.tell("market.wrong", roles![x: x]);
    s.feel(a, "ashamed");
    s.scene();
    let c = s.elder();
    s.tell("market.fix", roles![c: c, x: x]);
    s.maybe(60, "feel.tired", &[]);
    s.pass(40);
    s.tell("market.home", roles![b: b, x: x]);
    s.note("worked");
    s.end();
}
