//! Things that are held, lost, broken, mended, given and found.

/// What a thing is made of, and so how it breaks and is mended.
#[derive(Debug)]
pub struct Stuff {
    /// The material, as a tag.
    pub tag: &'static str,
    /// How it broke: "the kite tore".
    pub broke: &'static [&'static str],
    /// How it looks broken: "a long crack".
    pub damage: &'static [&'static str],
    /// How it was mended: "glued", for "She glued it".
    pub mended: &'static [&'static str],
    /// With what it is mended: "needle and thread".
    pub with: &'static [&'static str],
}

/// A kind of thing.
#[derive(Debug)]
pub struct Good {
    /// The noun, one of which is "a" or "an".
    pub noun: &'static str,
    /// What it is made of.
    pub stuff: &'static Stuff,
    /// Adjectives it may have.
    pub adjectives: &'static [&'static str],
    /// What it is, as tags: toy, worn, music, tool, light, shiny, vessel, book, warm, food, small.
    pub tags: &'static str,
}

const CLOTH: Stuff = Stuff {
    tag: "cloth",
    broke: &["tore", "ripped"],
    damage: &["a long tear", "a big hole", "a ragged rip"],
    mended: &["sewed", "stitched", "patched"],
    with: &["a needle and thread", "a patch and some thread", "strong yarn"],
};
const WOOD: Stuff = Stuff {
    tag: "wood",
    broke: &["cracked", "broke", "split", "snapped"],
    damage: &["a deep crack", "a broken side", "a loose piece"],
    mended: &["glued", "nailed", "fixed"],
    with: &["glue and string", "a hammer and two nails", "some strong glue"],
};
const CLAY: Stuff = Stuff {
    tag: "clay",
    broke: &["cracked", "broke", "chipped"],
    damage: &["a thin crack", "a missing piece", "a chip on one side"],
    mended: &["glued", "fixed", "mended"],
    with: &["sticky glue", "a little wet clay", "glue and patience"],
};
const METAL: Stuff = Stuff {
    tag: "metal",
    broke: &["bent", "broke"],
    damage: &["a big dent", "a bent edge", "a broken hinge"],
    mended: &["hammered", "fixed", "straightened"],
    with: &["a small hammer", "a hammer and a bit of wire", "a piece of wire"],
};
const PAPER: Stuff = Stuff {
    tag: "paper",
    broke: &["tore", "ripped"],
    damage: &["a long rip", "a torn corner", "a hole in the middle"],
    mended: &["pasted", "patched", "fixed"],
    with: &["paste and paper", "a strip of paper and some paste", "flour paste"],
};

const fn good(noun: &'static str, stuff: &'static Stuff, tags: &'static str, adjectives: &'static [&'static str]) -> Good {
    Good { noun, stuff, adjectives, tags }
}

const COLORS: &[&str] = &["red", "blue", "yellow", "green", "white", "purple", "orange", "striped"];
const WOODEN: &[&str] = &["wooden", "little wooden", "old wooden", "painted", "carved", "smooth", "old", "new", "tiny"];
const CLAYS: &[&str] = &["blue", "white", "brown", "painted", "round", "old", "shiny", "little"];
const METALS: &[&str] = &["silver", "shiny", "brass", "old", "rusty", "golden", "heavy", "tiny", "copper"];
const KNITTED: &[&str] = &["red", "blue", "woolen", "warm", "soft", "striped", "green", "knitted", "yellow", "gray"];
const PAPERS: &[&str] = &["old", "folded", "yellow", "thin", "painted", "blue", "red", "colorful"];

/// The goods.
pub const GOODS: &[Good] = &[
    good("ball", &CLOTH, "toy small", &["red", "blue", "yellow", "striped", "bouncy", "round", "green"]),
    good("kite", &PAPER, "toy flies", &["red", "blue", "yellow", "paper", "long-tailed", "green", "colorful"]),
    good("drum", &WOOD, "music toy", &["little", "red", "round", "loud", "painted", "wooden"]),
    good("flute", &WOOD, "music small", &["wooden", "reed", "little", "old", "silver"]),
    good("whistle", &METAL, "music small", &["tin", "silver", "shiny", "little", "brass"]),
    good("bell", &METAL, "music shiny small", METALS),
    good("fiddle", &WOOD, "music", &["old", "brown", "little", "shiny", "fine"]),
    good("horn", &METAL, "music", METALS),
    good("blanket", &CLOTH, "warm", KNITTED),
    good("scarf", &CLOTH, "worn warm small", KNITTED),
    good("hat", &CLOTH, "worn small", &["straw", "red", "blue", "woolen", "tall", "floppy", "green", "round"]),
    good("cap", &CLOTH, "worn small", KNITTED),
    good("coat", &CLOTH, "worn warm", KNITTED),
    good("mitten", &CLOTH, "worn warm small", KNITTED),
    good("cloak", &CLOTH, "worn warm", &["red", "blue", "green", "dark", "long", "woolen"]),
    good("ribbon", &CLOTH, "worn small", COLORS),
    good("quilt", &CLOTH, "warm", &["soft", "old", "bright", "patchwork", "blue", "heavy"]),
    good("pillow", &CLOTH, "warm", &["soft", "round", "blue", "feather", "white"]),
    good("sack", &CLOTH, "vessel", &["brown", "heavy", "old", "big", "empty"]),
    good("bag", &CLOTH, "vessel small", &["leather", "brown", "small", "striped", "red", "cloth"]),
    good("flag", &CLOTH, "flies", COLORS),
    good("tent", &CLOTH, "", &["green", "old", "little", "striped", "white"]),
    good("basket", &WOOD, "vessel", &["straw", "round", "brown", "little", "willow", "big"]),
    good("bucket", &METAL, "vessel tool", &["tin", "old", "blue", "shiny", "rusty"]),
    good("lantern", &METAL, "light", &["old", "brass", "little", "bright", "iron", "red"]),
    good("lamp", &CLAY, "light", &["old", "little", "clay", "blue", "bright"]),
    good("candle", &CLAY, "light small", &["white", "tall", "red", "honey-colored", "little"]),
    good("cup", &CLAY, "vessel small", CLAYS),
    good("bowl", &CLAY, "vessel", CLAYS),
    good("jug", &CLAY, "vessel", CLAYS),
    good("vase", &CLAY, "vessel", CLAYS),
    good("plate", &CLAY, "vessel", CLAYS),
    good("teapot", &CLAY, "vessel", CLAYS),
    good("jar", &CLAY, "vessel", CLAYS),
    good("doll", &CLOTH, "toy", &["rag", "little", "soft", "old", "pretty", "knitted"]),
    good("puppet", &WOOD, "toy", WOODEN),
    good("toy boat", &WOOD, "toy floats", &["wooden", "little", "red", "white", "painted"]),
    good("toy horse", &WOOD, "toy", WOODEN),
    good("toy train", &WOOD, "toy", WOODEN),
    good("spinning top", &WOOD, "toy small", &["red", "painted", "wooden", "bright", "little"]),
    good("sled", &WOOD, "toy", &["red", "wooden", "fast", "old", "long"]),
    good("cart", &WOOD, "tool", &["little", "wooden", "blue", "old", "two-wheeled"]),
    good("wagon", &WOOD, "toy tool", &["red", "little", "wooden", "old", "green"]),
    good("ladder", &WOOD, "tool", &["tall", "wooden", "old", "long"]),
    good("stool", &WOOD, "", WOODEN),
    good("chair", &WOOD, "", WOODEN),
    good("box", &WOOD, "vessel", WOODEN),
    good("chest", &WOOD, "vessel", &["old", "wooden", "heavy", "small", "dark"]),
    good("clock", &WOOD, "", &["old", "wooden", "round", "little", "tall"]),
    good("bird house", &WOOD, "", &["little", "wooden", "red", "new", "painted"]),
    good("raft", &WOOD, "floats", &["small", "wooden", "flat", "strong"]),
    good("rake", &WOOD, "tool", &["wooden", "old", "long", "new"]),
    good("broom", &WOOD, "tool", &["straw", "old", "long", "stiff"]),
    good("spoon", &WOOD, "tool small", &["wooden", "silver", "big", "old", "long"]),
    good("walking stick", &WOOD, "tool", &["carved", "old", "smooth", "strong", "wooden"]),
    good("shovel", &METAL, "tool", &["small", "iron", "old", "shiny", "rusty"]),
    good("hammer", &METAL, "tool", &["small", "heavy", "old", "good"]),
    good("key", &METAL, "small shiny", METALS),
    good("ring", &METAL, "small shiny worn", &["silver", "golden", "shiny", "thin", "little"]),
    good("necklace", &METAL, "small shiny worn", &["silver", "golden", "shiny", "pretty", "long"]),
    good("locket", &METAL, "small shiny worn", &["silver", "golden", "little", "old"]),
    good("coin", &METAL, "small shiny", &["silver", "golden", "old", "shiny", "copper"]),
    good("medal", &METAL, "small shiny", &["golden", "shiny", "round", "old"]),
    good("mirror", &METAL, "shiny", &["little", "round", "silver", "old", "pretty"]),
    good("compass", &METAL, "small shiny", &["brass", "old", "little", "round"]),
    good("kettle", &METAL, "vessel", &["black", "old", "copper", "shiny", "big"]),
    good("pan", &METAL, "vessel tool", &["black", "iron", "old", "heavy"]),
    good("watering can", &METAL, "tool vessel", &["green", "tin", "old", "little", "blue"]),
    good("book", &PAPER, "book", &["thick", "old", "blue", "red", "little", "dusty"]),
    good("picture", &PAPER, "", &["pretty", "small", "bright", "old", "framed"]),
    good("map", &PAPER, "book small", PAPERS),
    good("letter", &PAPER, "book small", &["long", "folded", "short", "kind"]),
    good("paper lantern", &PAPER, "light", &["red", "yellow", "round", "pretty", "white"]),
    good("fan", &PAPER, "small", PAPERS),
];
