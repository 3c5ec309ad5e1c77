//! Names. None ends in s, so that each takes 's.

/// His names.
pub const HIS: &[&str] = &[
    "Pip", "Bram", "Otto", "Tomo", "Milo", "Finn", "Hugo", "Nilo", "Rufo", "Benno", "Paco", "Inti", "Kuno", "Theo", "Jasper",
    "Oliver", "Sam", "Ben", "Leo", "Tim", "Jack", "Tom", "Noah", "Luca", "Mateo", "Diego", "Pablo", "Bruno", "Anton", "Emil",
    "Felix", "Oscar", "Arlo", "Bumble", "Dusty", "Fergo", "Kip", "Nutmeg", "Pepper", "Rusty", "Sandy", "Toby", "Wooly", "Zeke",
    "Caleb", "Dario", "Elio", "Henry", "Jory", "Lorenzo", "Marco", "Ned", "Omar", "Peter", "Quinn", "Rollo", "Simon", "Tito",
    "Victor", "Walter", "Yuri", "Alfie", "Chico", "Edgar",
];

/// Her names.
pub const HERS: &[&str] = &[
    "Lena", "Nala", "Rosa", "Mina", "Luna", "Ada", "Bella", "Clara", "Daisy", "Ella", "Flora", "Greta", "Hanna", "Ida", "Juna",
    "Kira", "Lily", "Maya", "Nina", "Olga", "Pia", "Rita", "Sara", "Tilda", "Uma", "Vera", "Willa", "Yara", "Zoe", "Alma",
    "Anna", "Betty", "Carla", "Dora", "Elsa", "Frida", "Gina", "Holly", "Ivy", "Josie", "Killa", "Lucy", "Marta", "Nora", "Opal",
    "Poppy", "Ruby", "Sol", "Molly", "Mabel", "Penny", "Olive", "Maria", "Lola", "Julia", "Emma", "Eva", "Grace", "Jenny",
    "Kaya", "Lupe", "Misha", "Pearl", "Rina", "Sofia", "Tara", "Wilma", "Zora",
];
