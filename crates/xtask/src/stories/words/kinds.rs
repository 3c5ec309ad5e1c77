//! Kinds of animals and people.

/// How a kind is built, and so how it moves and what it is covered with.
#[derive(Debug)]
pub struct Body {
    /// What it stands on, one and many.
    pub foot: [&'static str; 2],
    /// What it holds things with: "in his paws".
    pub hold: &'static str,
    /// What covers it.
    pub coat: &'static str,
    /// The front of its face.
    pub nose: &'static str,
    /// How it went, in the past.
    pub went: &'static [&'static str],
    /// How it is built, as tags.
    pub tags: &'static str,
}

/// A kind of animal or person.
#[derive(Debug)]
pub struct Kind {
    /// The noun.
    pub noun: &'static str,
    /// Its body.
    pub body: &'static Body,
    /// What it can do, as tags.
    pub tags: &'static str,
    /// Adjectives that a young one may have.
    pub young: &'static [&'static str],
}

const WOOL: Body = Body {
    foot: ["hoof", "hooves"],
    hold: "mouth",
    coat: "wool",
    nose: "nose",
    went: &["trotted", "walked", "hurried", "ran", "wandered", "skipped"],
    tags: "wool hooves furry",
};
const HOOF: Body = Body {
    foot: ["hoof", "hooves"],
    hold: "mouth",
    coat: "coat",
    nose: "nose",
    went: &["trotted", "walked", "galloped", "ran", "wandered", "hurried", "clattered"],
    tags: "hooves furry",
};
const PAW: Body = Body {
    foot: ["paw", "paws"],
    hold: "paws",
    coat: "fur",
    nose: "nose",
    went: &["ran", "padded", "walked", "hurried", "scampered", "crept", "trotted"],
    tags: "paws furry",
};
const HOP: Body = Body {
    foot: ["paw", "paws"],
    hold: "paws",
    coat: "fur",
    nose: "nose",
    went: &["hopped", "bounced", "ran", "scampered", "hurried", "skipped"],
    tags: "paws furry",
};
const BIRD: Body = Body {
    foot: ["claw", "claws"],
    hold: "beak",
    coat: "feathers",
    nose: "beak",
    went: &["flew", "fluttered", "flapped", "hurried", "hopped", "sailed"],
    tags: "bird wings flies",
};
const FOWL: Body = Body {
    foot: ["foot", "feet"],
    hold: "beak",
    coat: "feathers",
    nose: "beak",
    went: &["waddled", "walked", "hurried", "ran", "strutted", "wandered"],
    tags: "bird wings",
};
const LEAP: Body = Body {
    foot: ["foot", "feet"],
    hold: "mouth",
    coat: "skin",
    nose: "nose",
    went: &["hopped", "leaped", "jumped", "hurried", "bounced"],
    tags: "smooth",
};
const SLOW: Body = Body {
    foot: ["foot", "feet"],
    hold: "mouth",
    coat: "shell",
    nose: "nose",
    went: &["crawled", "crept", "walked", "plodded", "marched"],
    tags: "shell slow",
};
const HAND: Body = Body {
    foot: ["foot", "feet"],
    hold: "hands",
    coat: "hair",
    nose: "nose",
    went: &["walked", "ran", "hurried", "skipped", "wandered", "marched", "strolled"],
    tags: "human hands",
};

const fn kind(noun: &'static str, body: &'static Body, tags: &'static str, young: &'static [&'static str]) -> Kind {
    Kind { noun, body, tags, young }
}

const WOOLLY: &[&str] = &["small", "little", "young", "fluffy", "white", "brown", "gray", "black", "woolly", "spotted", "cream"];
const HOOVED: &[&str] = &["small", "little", "young", "brown", "gray", "white", "spotted", "long-legged", "black"];
const FURRY: &[&str] = &["small", "little", "young", "gray", "brown", "white", "fluffy", "black", "soft"];
const FEATHERED: &[&str] = &["small", "little", "young", "brown", "gray", "speckled", "white"];
const PLAIN: &[&str] = &["small", "little", "young", "green", "brown", "spotted"];
const CHILD: &[&str] = &["small", "little", "young", "tall", "thin", "freckled"];

/// The first of the kinds, and the most frequent hero.
pub const LLAMA: Kind = kind("llama", &WOOL, "big strong climbs", WOOLLY);

/// The kinds that may be young: heroes and their friends.
pub const KINDS: &[Kind] = &[
    LLAMA,
    kind("alpaca", &WOOL, "big climbs", WOOLLY),
    kind("goat", &HOOF, "big climbs strong", HOOVED),
    kind("lamb", &WOOL, "", WOOLLY),
    kind("sheep", &WOOL, "big", WOOLLY),
    kind("donkey", &HOOF, "big strong", HOOVED),
    kind("pony", &HOOF, "big strong", HOOVED),
    kind("calf", &HOOF, "big strong", HOOVED),
    kind("foal", &HOOF, "big", HOOVED),
    kind("deer", &HOOF, "big", HOOVED),
    kind("pig", &HOOF, "big digs", &["small", "little", "young", "pink", "spotted", "round"]),
    kind("cat", &PAW, "climbs night", FURRY),
    kind("kitten", &PAW, "tiny climbs", FURRY),
    kind("dog", &PAW, "digs swims", FURRY),
    kind("puppy", &PAW, "digs", FURRY),
    kind("mouse", &PAW, "tiny", FURRY),
    kind("rabbit", &HOP, "digs", FURRY),
    kind("fox", &PAW, "digs", &["small", "little", "young", "red", "thin", "gray"]),
    kind("bear", &PAW, "big strong climbs", FURRY),
    kind("badger", &PAW, "digs strong night", FURRY),
    kind("squirrel", &HOP, "tiny climbs", &["small", "little", "young", "red", "gray"]),
    kind("hedgehog", &PAW, "tiny night", &["small", "little", "young", "brown", "round"]),
    kind("mole", &PAW, "tiny digs", &["small", "little", "young", "black", "soft"]),
    kind("beaver", &PAW, "swims strong", &["small", "little", "young", "brown"]),
    kind("otter", &PAW, "swims", &["small", "little", "young", "brown", "sleek"]),
    kind("chinchilla", &HOP, "tiny climbs", FURRY),
    kind("guinea pig", &HOP, "tiny", FURRY),
    kind("hamster", &PAW, "tiny", FURRY),
    kind("frog", &LEAP, "tiny swims", PLAIN),
    kind("toad", &LEAP, "tiny swims", PLAIN),
    kind("turtle", &SLOW, "swims", PLAIN),
    kind("snail", &SLOW, "tiny", PLAIN),
    kind("duck", &FOWL, "swims", &["small", "little", "young", "yellow", "white", "brown"]),
    kind("goose", &FOWL, "swims", &["small", "little", "young", "white", "gray"]),
    kind("hen", &FOWL, "female", &["small", "little", "young", "red", "brown", "speckled", "white"]),
    kind("rooster", &FOWL, "male", &["small", "little", "young", "red", "proud"]),
    kind("owl", &BIRD, "night", FEATHERED),
    kind("crow", &BIRD, "", &["small", "little", "young", "black"]),
    kind("sparrow", &BIRD, "tiny", FEATHERED),
    kind("robin", &BIRD, "tiny", FEATHERED),
    kind("dove", &BIRD, "", &["small", "little", "young", "white", "gray"]),
    kind("boy", &HAND, "male child", CHILD),
    kind("girl", &HAND, "female child", CHILD),
    kind("boy", &HAND, "male child", CHILD),
    kind("girl", &HAND, "female child", CHILD),
];

/// The kinds that are met on the way and may be old or grown.
pub const ELDERS: &[Kind] = &[
    LLAMA,
    kind("alpaca", &WOOL, "big climbs", &[]),
    kind("goat", &HOOF, "big climbs strong", &[]),
    kind("sheep", &WOOL, "big", &[]),
    kind("donkey", &HOOF, "big strong", &[]),
    kind("horse", &HOOF, "big strong", &[]),
    kind("cow", &HOOF, "big strong female", &[]),
    kind("ox", &HOOF, "big strong male", &[]),
    kind("bear", &PAW, "big strong climbs", &[]),
    kind("badger", &PAW, "digs strong night", &[]),
    kind("dog", &PAW, "digs swims", &[]),
    kind("cat", &PAW, "climbs night", &[]),
    kind("fox", &PAW, "digs", &[]),
    kind("beaver", &PAW, "swims strong", &[]),
    kind("otter", &PAW, "swims", &[]),
    kind("owl", &BIRD, "night", &[]),
    kind("crow", &BIRD, "", &[]),
    kind("eagle", &BIRD, "big strong", &[]),
    kind("condor", &BIRD, "big strong", &[]),
    kind("heron", &BIRD, "big swims", &[]),
    kind("stork", &BIRD, "big", &[]),
    kind("goose", &FOWL, "swims", &[]),
    kind("turtle", &SLOW, "swims", &[]),
    kind("toad", &LEAP, "tiny swims", &[]),
    kind("mouse", &PAW, "tiny", &[]),
    kind("farmer", &HAND, "grown strong", &[]),
    kind("baker", &HAND, "grown cooks", &[]),
    kind("shepherd", &HAND, "grown", &[]),
    kind("miller", &HAND, "grown strong", &[]),
    kind("weaver", &HAND, "grown sews", &[]),
    kind("potter", &HAND, "grown", &[]),
    kind("carpenter", &HAND, "grown strong mends", &[]),
    kind("blacksmith", &HAND, "grown strong mends", &[]),
    kind("gardener", &HAND, "grown digs", &[]),
    kind("woman", &HAND, "grown female", &[]),
    kind("man", &HAND, "grown male", &[]),
    kind("teacher", &HAND, "grown", &[]),
    kind("sailor", &HAND, "grown swims", &[]),
    kind("fiddler", &HAND, "grown", &[]),
    kind("peddler", &HAND, "grown", &[]),
];

/// Adjectives of those who are not young.
pub const OLD: &[&str] =
    &["old", "wise old", "kind old", "gentle old", "gray old", "tall", "big", "quiet old", "friendly", "thin old", "plump"];
