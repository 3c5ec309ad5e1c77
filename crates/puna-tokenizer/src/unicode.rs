//! The general categories that pre-tokenizers ask for, as a table over all code points.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// A set of general categories.
pub(crate) type Category = u8;

/// Uppercase and titlecase letters, `\p{Lu}\p{Lt}`.
pub(crate) const UPPER: Category = 1;
/// Lowercase letters, `\p{Ll}`.
pub(crate) const LOWER: Category = 2;
/// Modifier and other letters, `\p{Lm}\p{Lo}`.
pub(crate) const OTHER_LETTER: Category = 4;
/// Marks, `\p{M}`.
pub(crate) const MARK: Category = 8;
/// Numbers, `\p{N}`.
pub(crate) const NUMBER: Category = 16;
/// White space, `\s`.
pub(crate) const SPACE: Category = 32;
/// Decimal digits and other numerics by [`char::is_numeric`] are [`NUMBER`]; letters of all kinds, `\p{L}`.
pub(crate) const LETTER: Category = UPPER | LOWER | OTHER_LETTER;

/// The categories of a character.
pub(crate) fn category(c: char) -> Category {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(Table::new).get(c)
}

/// Pages of 256 code points; equal pages are stored once.
struct Table {
    pages: Vec<[Category; 256]>,
    index: Vec<u16>,
}

impl Table {
    fn new() -> Self {
        let mut flat = vec![0; 0x11_0000];
        let classes = [
            (UPPER, r"[\p{Lu}\p{Lt}]"),
            (LOWER, r"\p{Ll}"),
            (OTHER_LETTER, r"[\p{Lm}\p{Lo}]"),
            (MARK, r"\p{M}"),
            (NUMBER, r"\p{N}"),
            (SPACE, r"\s"),
        ];
        for (category, pattern) in classes {
            let hir = regex_syntax::parse(pattern).expect("the pattern is one of ours");
            let HirKind::Class(Class::Unicode(class)) = hir.kind() else { unreachable!("a class of characters") };
            for range in class.ranges() {
                flat[range.start() as usize..=range.end() as usize].iter_mut().for_each(|c| *c |= category);
            }
        }
        let (mut pages, mut index): (Vec<[Category; 256]>, Vec<u16>) = (Vec::new(), Vec::new());
        for page in flat.chunks_exact(256) {
            let at = pages.iter().position(|known| known == page).unwrap_or_else(|| {
                pages.push(page.try_into().expect("chunks of 256"));
                pages.len() - 1
            });
            index.push(at as u16);
        }
        Self { pages, index }
    }

    fn get(&self, c: char) -> Category {
        let c = c as usize;
        self.pages[usize::from(self.index[c >> 8])][c & 255]
    }
}
