//! Plots about plants, animals, weather, wishes and wonders.

use crate::stories::Story;
use crate::stories::telling::roles;
use crate::stories::world::At;

/// A seed needs time.
pub(super) fn seed(s: &mut Story) {
    s.world.season = "spring";
    s.world.weather = "sun";
    s.open();
    s.maybe(70, "alone", &[]);
    let c = s.elder();
    let p = s.a_place("plants");
    s.scene();
    s.tell("seed.get", roles![c: c, p: p]);
    s.tell("seed.plant", roles![p: p]);
    s.tell("seed.wait", &[]);
    s.maybe(60, "seed.wait", &[]);
    let b = if s.rng.chance(50) {
        let a = s.hero();
        let relation = *s.rng.pick(&["grandmother", "mother", "grandfather"]);
        s.kin(a, relation)
    } else {
        s.friend()
    };
    s.tell("seed.doubt", roles![b: b]);
    s.scene();
    s.tell("seed.sprout", &[]);
    s.maybe(70, "feel.happy", &[]);
    s.maybe(80, "seed.danger", &[]);
    s.tell("seed.grow", &[]);
    s.tell("seed.fruit", &[]);
    s.maybe(70, "seed.share", &[]);
    s.world.season = "summer";
    s.note("waited");
    s.end();
}

/// A young bird is nursed and let go.
pub(super) fn chick(s: &mut Story) {
    let a = s.hero();
    s.make(a, "gentle");
    if s.world.season == "winter" {
        s.world.season = "summer";
        s.world.weather = "sun";
    }
    s.open();
    s.one_day();
    s.maybe(80, "alone", &[]);
    s.tell("chick.find", &[]);
    s.tell("chick.care", &[]);
    s.maybe(70, "chick.care", &[]);
    s.tell("chick.love", &[]);
    s.scene();
    s.tell("chick.want", &[]);
    let relation = *s.rng.pick(&["mother", "grandmother", "father", "grandfather"]);
    let b = s.kin(a, relation);
    s.tell("chick.advice", roles![b: b]);
    s.maybe(60, "feel.sad", &[]);
    s.tell("chick.go", &[]);
    s.tell("chick.back", &[]);
    s.feel(a, "happy");
    s.note("kind");
    s.end();
}

/// The first snow.
pub(super) fn snow(s: &mut Story) {
    (s.world.season, s.world.weather, s.world.time) = ("winter", "snow", "morning");
    s.open();
    let b = s.old_friend();
    s.scene();
    s.tell("snow.wake", &[]);
    s.maybe(60, "weather", &[]);
    let a = s.hero();
    s.feel(a, "happy");
    s.join(b);
    s.tell("snow.play", &[]);
    s.tell("snow.play", &[]);
    if s.rng.chance(50) {
        let p = s.a_place("outdoors");
        s.go(p, 40);
        s.tell("snow.play", &[]);
    }
    s.part();
    s.scene();
    s.tell("snow.cold", &[]);
    s.tell("snow.help", roles![b: b]);
    s.pass(60);
    s.maybe(70, "snow.melt", roles![b: b]);
    s.note("friend");
    s.end();
}

/// The well is dry, and an old tale shows where water is.
pub(super) fn drought(s: &mut Story) {
    (s.world.season, s.world.weather) = ("summer", "sun");
    s.open();
    let b = s.old_friend();
    s.scene();
    let (p, q) = (At(0), s.a_place("high"));
    s.tell("dry.summer", roles![p: p]);
    s.tell("dry.talk", &[]);
    let c = s.elder();
    s.tell("dry.tale", roles![c: c, q: q]);
    s.tell("ask.help", roles![b: b]);
    s.tell("help.yes", roles![b: b]);
    s.join(b);
    s.scene();
    s.go(q, 80);
    s.tell("dry.find", roles![q: q]);
    s.tell("dry.dig", &[]);
    s.pass(30);
    s.scene();
    s.tell("dry.joy", roles![p: p]);
    s.note("together");
    s.end();
}

/// A wish comes true and is taken back.
pub(super) fn wish(s: &mut Story) {
    let a = s.hero();
    s.open();
    s.before();
    s.world.time = "night";
    s.scene();
    s.maybe(60, "nature", &[]);
    let c = s.elder();
    s.tell("star.see", roles![c: c]);
    s.tell("star.wish", &[]);
    s.tell("star.true", &[]);
    s.feel(a, "happy");
    s.scene();
    s.tell("star.trouble", &[]);
    s.feel(a, "lonely");
    s.tell("star.back", &[]);
    s.scene();
    s.world.time = "morning";
    s.tell("star.home", &[]);
    s.note("content");
    s.end();
}

/// A journey to something never seen.
pub(super) fn journey(s: &mut Story) {
    s.open();
    let b = s.old_friend();
    s.scene();
    let x = *s.rng.pick(&[
        "the sea",
        "the great waterfall",
        "the city with the golden roofs",
        "the valley of the flowers",
        "the salt desert",
        "the ice on the highest mountain",
        "the big ships",
        "the forest of giant trees",
        "the lake of a thousand birds",
    ]);
    s.tell("far.wish", roles![x: x]);
    s.tell("far.plan", roles![b: b, x: x]);
    s.join(b);
    s.scene();
    s.tell("travel", &[]);
    s.obstacle();
    s.scene();
    s.world.time = "night";
    s.tell("far.night", &[]);
    s.tell("far.doubt", roles![b: b]);
    s.world.time = "morning";
    if s.room() {
        s.obstacle();
    }
    s.scene();
    s.tell("far.see", roles![x: x]);
    s.tell("far.stay", &[]);
    s.world.time = "evening";
    s.tell("far.home", roles![b: b]);
    s.maybe(60, "home", &[]);
    s.note("friend");
    s.note("content");
    s.end();
}

/// A voice is lost, and listening is learned.
pub(super) fn voiceless(s: &mut Story) {
    let a = s.hero();
    s.open();
    let b = s.old_friend();
    s.before();
    s.tell("voice.lost", roles![b: b]);
    s.feel(a, "worried");
    s.tell("voice.miss", roles![p: At(0)]);
    s.tell("voice.help", roles![b: b]);
    s.scene();
    s.tell("voice.listen", &[]);
    s.maybe(50, "nature", &[]);
    s.tell("voice.back", &[]);
    s.feel(a, "happy");
    s.note("friend");
    s.end();
}

/// The dark is faced for a friend.
pub(super) fn dark(s: &mut Story) {
    let a = s.hero();
    s.make(a, "gentle");
    s.open();
    s.tell("dark.fear", &[]);
    let b = s.old_friend();
    s.scene();
    s.world.time = "night";
    s.tell("dark.need", roles![b: b]);
    s.feel(a, "afraid");
    s.tell("dark.go", roles![b: b]);
    s.tell("dark.see", &[]);
    s.maybe(40, "nature", &[]);
    s.tell("dark.find", roles![b: b]);
    s.maybe(60, "thanks", roles![a: b, b: a]);
    s.note("friend");
    s.note("brave");
    s.end();
}

/// Wool is given to those who are cold.
pub(super) fn wool(s: &mut Story) {
    let a = s.hero();
    if !s.world.who(a).is("wool") {
        return journey(s);
    }
    (s.world.season, s.world.weather) = ("winter", "snow");
    s.make(a, "kind");
    s.open();
    s.scene();
    let c = s.friend();
    s.tell("wool.cold", roles![c: c, p: At(0)]);
    s.tell("wool.idea", &[]);
    let b = s.elder_of("human");
    s.tell("wool.cut", roles![b: b]);
    s.tell("wool.made", &[]);
    s.tell("wool.teased", &[]);
    s.maybe(50, "nature", &[]);
    s.scene();
    s.world.time = "night";
    s.tell("wool.back", &[]);
    s.feel(a, "happy");
    s.note("kind");
    s.note("shared");
    s.end();
}

/// An egg is kept warm, and what comes out needs its family.
pub(super) fn egg(s: &mut Story) {
    let a = s.hero();
    (s.world.season, s.world.weather) = ("spring", "sun");
    s.open();
    let b = s.old_friend();
    s.one_day();
    s.maybe(60, "alone", &[]);
    let p = s.a_place("outdoors");
    s.tell("egg.find", roles![p: p]);
    s.feel(a, "curious");
    s.tell("egg.keep", &[]);
    s.scene();
    s.tell("egg.crack", &[]);
    s.tell("egg.mother", &[]);
    s.tell("egg.search", roles![b: b]);
    s.join(b);
    let p = s.a_place("water");
    s.go(p, 60);
    s.scene();
    s.tell("egg.parent", &[]);
    s.tell("egg.visit", &[]);
    s.note("kind");
    s.end();
}
