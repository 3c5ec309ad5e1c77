//! Places: how one is in them and goes to them, and where in them things can hide.

/// A kind of place.
#[derive(Debug)]
pub struct Spot {
    /// The noun.
    pub noun: &'static str,
    /// Adjectives that it may have.
    pub adjectives: &'static [&'static str],
    /// How one is there: "in", "by", "on".
    pub at: &'static str,
    /// What it is, as tags.
    pub tags: &'static str,
    /// Where something can lie hidden in it.
    pub nooks: &'static [&'static str],
}

const fn spot(
    noun: &'static str,
    at: &'static str,
    tags: &'static str,
    adjectives: &'static [&'static str],
    nooks: &'static [&'static str],
) -> Spot {
    Spot { noun, adjectives, at, tags, nooks }
}

/// Where characters live.
pub const HOMES: &[Spot] = &[
    spot(
        "grassland",
        "on",
        "outdoors wide high",
        &["high", "wide", "windy", "golden"],
        &["in the long grass", "behind a gray rock", "under a thorn bush", "beside an anthill"],
    ),
    spot(
        "village",
        "in",
        "outdoors people",
        &["little", "quiet", "small", "busy"],
        &["behind the well", "under a bench", "beside the stone wall", "in a flower pot"],
    ),
    spot(
        "farm",
        "on",
        "outdoors farm",
        &["small", "old", "sunny", "little"],
        &["behind the hen house", "under the old cart", "in the milk pail", "beside the fence"],
    ),
    spot(
        "valley",
        "in",
        "outdoors wide",
        &["green", "deep", "quiet", "sunny"],
        &["between two rocks", "under the ferns", "in a patch of clover", "behind a fallen log"],
    ),
    spot(
        "hill",
        "on",
        "outdoors high",
        &["green", "round", "sunny", "windy"],
        &["between the stones", "under a bush", "in a rabbit hole", "in the tall grass"],
    ),
    spot(
        "forest",
        "in",
        "outdoors trees dark",
        &["old", "green", "quiet", "deep"],
        &["under a pile of leaves", "in a hollow tree", "behind a mossy stump", "among the roots"],
    ),
    spot(
        "meadow",
        "in",
        "outdoors wide",
        &["wide", "sunny", "flowery", "green"],
        &["among the daisies", "in the tall grass", "under a big leaf", "beside a molehill"],
    ),
    spot(
        "mountain",
        "on",
        "outdoors high cold",
        &["tall", "snowy", "gray", "steep"],
        &["behind a boulder", "in a crack in the rock", "under a pine tree", "in a small cave"],
    ),
];

/// Where stories lead.
pub const PLACES: &[Spot] = &[
    spot(
        "river",
        "by",
        "outdoors water",
        &["wide", "cold", "blue", "winding"],
        &["between the wet stones", "in the reeds", "under the willow", "on the sandy bank"],
    ),
    spot(
        "pond",
        "by",
        "outdoors water",
        &["round", "green", "quiet", "muddy"],
        &["among the reeds", "under a lily leaf", "in the mud", "beside a frog's stone"],
    ),
    spot(
        "lake",
        "by",
        "outdoors water",
        &["big", "silver", "clear", "calm"],
        &["in an old boat", "under the jetty", "between the pebbles", "in the rushes"],
    ),
    spot(
        "barn",
        "in",
        "indoors farm",
        &["old", "red", "big", "warm"],
        &["under the hay", "behind the feed sacks", "in an empty bucket", "up in the loft"],
    ),
    spot(
        "kitchen",
        "in",
        "indoors food",
        &["warm", "bright", "cozy", "small"],
        &["under the table", "behind the stove", "in the flour bin", "on top of the cupboard"],
    ),
    spot(
        "garden",
        "in",
        "outdoors plants",
        &["pretty", "tidy", "wild", "sunny"],
        &["under the cabbage leaves", "behind the roses", "beside the watering can", "in the bean rows"],
    ),
    spot(
        "market",
        "at",
        "outdoors people",
        &["busy", "noisy", "crowded", "colorful"],
        &["under an apple stall", "behind a pile of melons", "between two baskets", "beside the cheese cart"],
    ),
    spot(
        "mill",
        "in",
        "indoors people",
        &["old", "white", "dusty", "creaky"],
        &["behind the flour sacks", "under the stairs", "beside the great wheel", "on a high shelf"],
    ),
    spot(
        "orchard",
        "in",
        "outdoors trees food",
        &["old", "shady", "sweet", "sunny"],
        &["in the fork of an apple tree", "under a ladder", "among the fallen apples", "in a pear basket"],
    ),
    spot(
        "field",
        "in",
        "outdoors wide",
        &["wide", "yellow", "stony", "green"],
        &["beside a scarecrow", "in a furrow", "under a haystack", "behind the hedge"],
    ),
    spot(
        "cave",
        "in",
        "dark cold",
        &["dark", "deep", "cool", "secret"],
        &["behind a big stone", "in a dark corner", "on a narrow ledge", "under some dry leaves"],
    ),
    spot(
        "school",
        "at",
        "indoors people",
        &["small", "little", "bright", "old"],
        &["under a desk", "behind the door", "in the coat room", "beside the chalk box"],
    ),
    spot(
        "shed",
        "in",
        "indoors tools",
        &["old", "small", "dusty", "crooked"],
        &["behind the rake", "in a flower pot", "under an old sack", "on a cobwebbed shelf"],
    ),
    spot(
        "stable",
        "in",
        "indoors farm",
        &["warm", "old", "quiet", "long"],
        &["in the manger", "under the straw", "behind a saddle", "beside the oat bin"],
    ),
    spot(
        "attic",
        "in",
        "indoors dark",
        &["dusty", "dark", "quiet", "low"],
        &["in an old trunk", "behind a broken chair", "under a sheet", "in a hat box"],
    ),
    spot(
        "bakery",
        "in",
        "indoors food people",
        &["little", "warm", "sweet", "busy"],
        &["behind the bread rack", "under the counter", "in an empty basket", "beside the oven"],
    ),
    spot(
        "town square",
        "in",
        "outdoors people",
        &["old", "busy", "sunny", "wide"],
        &["beside the fountain", "under a bench", "behind the clock tower", "in a flower bed"],
    ),
    spot(
        "woods",
        "in",
        "outdoors trees dark",
        &["dark", "green", "silent", "thick"],
        &["in a hollow log", "under a mushroom", "behind an oak tree", "in a heap of leaves"],
    ),
    spot(
        "waterfall",
        "by",
        "outdoors water",
        &["tall", "loud", "shining", "hidden"],
        &["behind the falling water", "on a wet ledge", "among the ferns", "between mossy rocks"],
    ),
    spot(
        "hilltop",
        "on",
        "outdoors high",
        &["windy", "bare", "high", "grassy"],
        &["between two stones", "under a bent tree", "in a clump of heather", "beside a stone wall"],
    ),
    spot(
        "pasture",
        "in",
        "outdoors wide farm",
        &["green", "high", "fenced", "quiet"],
        &["beside the water trough", "in the clover", "under the gate", "behind a salt lick"],
    ),
    spot(
        "library",
        "in",
        "indoors people",
        &["quiet", "old", "little", "tall"],
        &["behind the thick books", "under a reading chair", "on the bottom shelf", "inside a big atlas"],
    ),
    spot(
        "workshop",
        "in",
        "indoors tools",
        &["busy", "dusty", "bright", "small"],
        &["under a workbench", "in a box of nails", "behind some planks", "among the wood shavings"],
    ),
    spot(
        "beach",
        "on",
        "outdoors water",
        &["sandy", "windy", "long", "white"],
        &["in a tide pool", "under some seaweed", "beside a rowing boat", "in the dry sand"],
    ),
    spot(
        "old bridge",
        "by",
        "outdoors water",
        &[],
        &["under the first arch", "between two planks", "in the nettles", "on a ledge above the water"],
    ),
    spot(
        "vegetable patch",
        "in",
        "outdoors plants food",
        &["neat", "muddy", "little", "green"],
        &["among the carrots", "under a pumpkin leaf", "behind the bean poles", "in a wheelbarrow"],
    ),
];
