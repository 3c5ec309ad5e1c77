//! Plots about things: lost, lent and broken, made and given, traded, shared.

use crate::stories::Story;
use crate::stories::telling::roles;
use crate::stories::world::{At, Who};

/// The tag of things that suit someone: what is tiny has small things.
fn suits(s: &mut Story, who: Who) -> &'static str {
    match s.world.who(who).is("tiny") {
        true if s.rng.chance(65) => "small",
        true => "toy",
        false => "",
    }
}

/// A thing is lost and sought, alone or with a friend; it lies hidden, or someone has it.
pub(super) fn lost(s: &mut Story) {
    let a = s.hero();
    s.open();
    let tag = suits(s, a);
    let t = s.thing(Some(a), tag);
    s.tell("treasure", roles![t: t]);
    s.maybe(40, "use", roles![t: t]);
    let friend = s.rng.chance(55).then(|| s.old_friend());
    s.one_day();
    let there = s.a_place("");
    s.hide(t, there);
    s.tell("miss", roles![t: t]);
    s.tell("miss.cry", roles![t: t]);
    let mood = *s.rng.pick(&["sad", "worried", "sad"]);
    s.feel(a, mood);
    if let Some(b) = friend {
        s.scene();
        s.tell("ask.wrong", roles![a: b, b: a]);
        s.tell("lost.told", roles![b: b, t: t]);
        s.tell("help.yes", roles![b: b]);
        s.join(b);
        s.note("friend");
    }
    if s.rng.chance(30) {
        let p = s.a_place("");
        s.go(p, 60);
        s.claim(t);
    } else {
        s.seek(t);
    }
    s.note("careful");
    s.end();
}

/// A borrowed thing breaks; it is hidden or not, the truth comes out, and it is mended.
pub(super) fn borrowed(s: &mut Story) {
    let a = s.hero();
    s.open();
    let b = s.old_friend();
    let t = s.thing(Some(b), "");
    s.one_day();
    s.tell("borrow.ask", roles![b: b, t: t]);
    s.world.give(t, a);
    s.tell("borrow.use", roles![t: t]);
    s.tell("breaks", roles![t: t]);
    s.world.thing_mut(t).broken = true;
    s.tell("damage", roles![t: t]);
    s.maybe(50, "feel.afraid", &[]);
    if s.rng.chance(60) {
        s.scene();
        s.tell("hide.it", roles![t: t]);
        s.maybe(60, "hide.asked", roles![b: b, t: t]);
        s.tell("hide.guilt", roles![t: t]);
        s.maybe(40, "feel.ashamed", &[]);
        s.next_day();
    }
    s.scene();
    s.tell("confess", roles![b: b, t: t]);
    s.tell("confess.answer", roles![b: b, t: t]);
    s.scene();
    s.tell("mend.with", roles![b: b, t: t]);
    s.world.thing_mut(t).broken = false;
    s.tell("mended", roles![t: t]);
    s.note("careful");
    s.note("truth");
    s.end();
}

/// The hero's own treasure breaks and is mended, alone or by someone who can.
pub(super) fn broken(s: &mut Story) {
    let a = s.hero();
    s.open();
    let tag = suits(s, a);
    let t = s.thing(Some(a), tag);
    s.tell("treasure", roles![t: t]);
    s.maybe(60, "use", roles![t: t]);
    s.one_day();
    s.tell("breaks", roles![t: t]);
    s.world.thing_mut(t).broken = true;
    s.tell("damage", roles![t: t]);
    s.tell("broken.cry", roles![t: t]);
    s.feel(a, "sad");
    s.scene();
    match s.rng.below(3) {
        0 => {
            s.tell("mend.idea", roles![t: t]);
            s.maybe(50, "think", &[]);
            s.tell("mend.alone", roles![t: t]);
            s.note("worked");
        }
        1 => {
            let relation = *s.rng.pick(&["grandmother", "grandfather", "mother", "father"]);
            let b = s.kin(a, relation);
            s.tell("comfort", roles![b: b]);
            s.tell("mend.idea", roles![t: t]);
            s.tell("mend.with", roles![b: b, t: t]);
            s.note("together");
        }
        _ => {
            s.tell("mend.idea", roles![t: t]);
            let p = s.a_place("people");
            s.go(p, 60);
            if s.rng.chance(30) {
                let c = s.friend();
                s.tell("meet", roles![b: c, p: p]);
                s.tell("ask.help", roles![b: c]);
                s.tell("help.no", roles![b: c]);
                s.page.paragraph();
            }
            let b = s.elder_of("human");
            s.tell("meet", roles![b: b, p: p]);
            s.tell("meet.trait", roles![b: b]);
            s.maybe(40, "greet", roles![b: b, q: At(0)]);
            s.tell("ask.help", roles![b: b]);
            s.tell("help.yes", roles![b: b]);
            s.tell("mend.with", roles![b: b, t: t]);
            s.tell("thanks", roles![b: b]);
            s.note("helped");
        }
    }
    s.world.thing_mut(t).broken = false;
    s.tell("mended", roles![t: t]);
    s.end();
}

const MATERIALS: &[(&str, [&str; 3])] = &[
    ("cloth", ["some red wool", "a piece of cloth", "strong thread"]),
    ("cloth", ["a needle", "soft yarn", "two buttons"]),
    ("cloth", ["a ball of wool", "some blue cloth", "a bit of lace"]),
    ("wood", ["a few planks", "some nails", "a pot of paint"]),
    ("wood", ["a piece of oak", "good glue", "a sharp knife"]),
    ("wood", ["some straight sticks", "strong string", "red paint"]),
    ("clay", ["a lump of clay", "a little water", "blue paint"]),
    ("paper", ["some thin paper", "a pot of paste", "colored ink"]),
    ("paper", ["two sticks", "a sheet of paper", "a long string"]),
];

/// A present is made for someone, from things that are found or given.
pub(super) fn present(s: &mut Story) {
    let a = s.hero();
    s.open();
    let b = if s.rng.chance(50) {
        s.old_friend()
    } else {
        let relation = *s.rng.pick(&["grandmother", "mother", "grandfather", "little sister", "little brother", "father"]);
        s.kin(a, relation)
    };
    s.one_day();
    s.tell("gift.day", roles![b: b]);
    let market = s.a_place("people");
    s.tell("gift.poor", roles![p: market]);
    let (stuff, [x, y, z]) = *s.rng.pick(MATERIALS);
    let t = s.thing(None, stuff);
    s.maybe(40, "feel.worried", &[]);
    s.tell("gift.make", roles![t: t]);
    s.tell("make.need", roles![x: x, y: y, z: z]);
    s.scene();
    for what in [x, y, z] {
        let p = s.a_place("");
        if s.room() {
            let c = s.elder();
            s.tell("make.got", roles![c: c, p: p, x: what]);
        } else {
            s.tell("make.got", roles![p: p, x: what]);
        }
    }
    s.pass(40);
    s.scene();
    s.tell("make.work", roles![t: t]);
    s.maybe(50, "make.work", roles![t: t]);
    s.tell("make.done", roles![t: t]);
    s.scene();
    s.tell("gift.give", roles![b: b, t: t]);
    s.tell("gift.joy", roles![b: b, t: t]);
    s.maybe(50, "gift.unlike", roles![b: b]);
    s.world.give(t, b);
    s.note("worked");
    s.note("shared");
    s.end();
}

/// One thing is traded for another until the right one is there.
pub(super) fn trade(s: &mut Story) {
    let a = s.hero();
    s.open();
    s.one_day();
    let t = s.thing(None, "");
    let mut u = s.thing(Some(a), "");
    s.world.thing_mut(u).owner = None;
    let p = s.a_place("people");
    s.tell("trade.want", roles![t: t, p: p]);
    s.tell("trade.have", roles![u: u]);
    let first = u;
    s.go(p, 30);
    for i in 0..2 {
        if i == 0 || s.room() {
            let (c, v) = (if s.rng.chance(60) { s.elder() } else { s.friend() }, s.thing(None, ""));
            s.scene();
            s.tell("trade.step", roles![c: c, u: u, v: v, p: p]);
            s.world.give(u, c);
            s.world.give(v, a);
            u = v;
        }
    }
    s.scene();
    let c = s.elder();
    s.tell("trade.last", roles![c: c, t: t, v: u]);
    s.world.give(t, a);
    s.feel(a, "happy");
    s.tell("trade.joy", roles![t: t, u: first]);
    s.note("clever");
    s.end();
}

/// A map is found, and what it shows is dug up and shared.
pub(super) fn treasure(s: &mut Story) {
    s.open();
    let b = s.old_friend();
    s.one_day();
    let p = s.a_place("indoors");
    s.tell("map.find", roles![p: p]);
    s.tell("feel.curious", &[]);
    s.tell("map.plan", roles![b: b]);
    s.join(b);
    let p = s.a_place("outdoors");
    s.trek(p);
    s.pass(40);
    s.scene();
    s.tell("map.dig", &[]);
    s.tell("map.chest", &[]);
    s.tell("map.share", roles![b: b]);
    s.note("friend");
    s.note("shared");
    s.end();
}

/// A fine new thing makes its owner lonely, until it is shared.
pub(super) fn vain(s: &mut Story) {
    let a = s.hero();
    let vice = *s.rng.pick(&["proud", "greedy"]);
    s.make(a, vice);
    s.open();
    let b = s.old_friend();
    let tag = *s.rng.pick(&["toy", "", "worn"]);
    let t = s.thing(Some(a), tag);
    s.one_day();
    s.tell("vain.new", roles![t: t]);
    s.tell("vain.refuse", roles![b: b, t: t]);
    s.maybe(50, "vain.refuse", roles![b: b, t: t]);
    s.feel(b, "sad");
    s.scene();
    s.tell("vain.alone", roles![t: t]);
    s.feel(a, "lonely");
    s.pass(50);
    s.tell("vain.turn", roles![b: b, t: t]);
    s.tell("vain.good", roles![b: b, t: t]);
    s.note("shared");
    s.end();
}

/// A warm thing is given to someone who is cold.
pub(super) fn warmth(s: &mut Story) {
    let a = s.hero();
    s.world.season = "winter";
    s.world.weather = *s.rng.pick(&["snow", "wind", "cloud"]);
    s.open();
    let t = s.thing(Some(a), "warm");
    s.tell("treasure", roles![t: t]);
    s.maybe(40, "use", roles![t: t]);
    s.one_day();
    let p = s.a_place("outdoors");
    s.go(p, 60);
    let c = if s.rng.chance(50) { s.elder() } else { s.friend() };
    s.scene();
    s.tell("bell.cold", roles![c: c]);
    s.tell("bell.think", roles![c: c, t: t]);
    s.tell("bell.give", roles![c: c, t: t]);
    s.world.give(t, c);
    s.world.thing_mut(t).owner = Some(c);
    s.maybe(70, "deed.thanks", roles![c: c]);
    s.scene();
    s.tell("bell.back", roles![c: c]);
    s.note("kind");
    s.note("shared");
    s.end();
}

/// The kindness of the morning helps in the evening.
pub(super) fn repaid(s: &mut Story) {
    let a = s.hero();
    s.make(a, "kind");
    s.open();
    let tag = suits(s, a);
    let t = s.thing(Some(a), tag);
    s.tell("treasure", roles![t: t]);
    s.one_day();
    let c = if s.rng.chance(50) { s.elder() } else { s.friend() };
    let here = s.a_place("outdoors");
    s.tell("good.deed", roles![c: c, p: here]);
    s.tell("deed.thanks", roles![c: c]);
    s.pass(80);
    s.scene();
    let there = s.a_place("");
    s.hide(t, there);
    s.tell("miss", roles![t: t]);
    s.tell("miss.cry", roles![t: t]);
    s.feel(a, "sad");
    s.scene();
    s.tell("repaid.comes", roles![c: c]);
    s.tell("help.because", roles![b: c]);
    s.join(c);
    s.ally = Some(c);
    s.go(there, 50);
    s.tell("search.there", roles![p: there, t: t, b: c]);
    s.find(t);
    s.tell("thanks", roles![b: c]);
    s.world.facts = vec!["repaid"];
    s.end();
}
