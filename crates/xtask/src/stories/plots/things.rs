//! Plots about things: lost, kept, broken, lent, made, given, traded.

use crate::stories::Story;
use crate::stories::telling::roles;
use crate::stories::world::At;

/// A thing is lost and sought, alone or with a friend; it lies hidden, or someone has it.
pub fn lost(s: &mut Story) {
    let a = s.hero();
    s.open();
    let t = s.thing(Some(a), "");
    s.tell("treasure", roles![a: a, t: t]);
    s.maybe(40, "use", roles![a: a, t: t]);
    let friend = s.rng.chance(55).then(|| s.old_friend());
    s.one_day();
    let there = s.a_place("");
    s.hide(t, there);
    s.tell("miss", roles![a: a, t: t]);
    s.tell("miss.cry", roles![a: a, t: t]);
    let mood = *s.rng.pick(&["sad", "worried", "sad"]);
    s.feel(a, mood);
    if let Some(b) = friend {
        s.page.paragraph();
        s.tell("ask.wrong", roles![a: b, b: a]);
        s.tell("lost.told", roles![a: a, b: b, t: t]);
        s.tell("help.yes", roles![a: a, b: b]);
        s.join(b);
        s.note("friend");
    } else {
        s.maybe(50, "remember", roles![a: a, p: there, q: At(0)]);
    }
    if s.rng.chance(30) {
        let p = s.a_place("");
        s.go(p, 30);
        s.claim(t);
    } else {
        s.seek(t);
    }
    s.note("careful");
    s.end();
}
