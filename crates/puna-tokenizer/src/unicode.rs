//! The general categories that pre-tokenizers ask for, as a table over all code points.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// A set of general categories.
pub(crate) type Category = u8;

/// Uppercase and titlecase letters, `\p{Lu}\p{Lt}`.
pub(crate) const UPPER: Category = 1;
/// Lowercase letters, `\p{Ll}`.
pub(crate) const LOWER: Category = 2;
/// Modifier and other letters, `\p{Lm}\p{Lo}`: they have no case.
pub(crate) const CASELESS: Category = 4;
/// Marks, `\p{M}`.
pub(crate) const MARK: Category = 8;
/// Numbers, `\p{N}`.
pub(crate) const NUMBER: Category = 16;
/// White space, `\s`.
pub(crate) const SPACE: Category = 32;
/// `\r` and `\n`.
pub(crate) const LINE_END: Category = 64;
/// Letters of all kinds, `\p{L}`.
pub(crate) const LETTER: Category = UPPER | LOWER | CASELESS;

/// Pages of 256 code points; equal pages are stored once.
pub(crate) struct Categories {
    pages: Vec<[Category; 256]>,
    index: Vec<u16>,
}

impl Categories {
    /// The table, made at the first call from the classes of the regular expression parser, so that our matchers and patterns
    /// from elsewhere know the same version of Unicode.
    pub(crate) fn table() -> &'static Self {
        static TABLE: OnceLock<Categories> = OnceLock::new();
        TABLE.get_or_init(Self::new)
    }

    fn new() -> Self {
        let classes = [
            (UPPER, r"[\p{Lu}\p{Lt}]"),
            (LOWER, r"\p{Ll}"),
            (CASELESS, r"[\p{Lm}\p{Lo}]"),
            (MARK, r"\p{M}"),
            (NUMBER, r"\p{N}"),
            (SPACE, r"\s"),
            (LINE_END, r"[\r\n]"),
        ];
        let mut flat = vec![0; 0x11_0000];
        for (category, pattern) in classes {
            let hir = regex_syntax::parse(pattern).expect("the patterns are written here");
            let HirKind::Class(Class::Unicode(class)) = hir.kind() else { unreachable!("each pattern is one class") };
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

    /// The categories of a character.
    #[inline]
    pub(crate) fn of(&self, c: char) -> Category {
        let c = c as usize;
        self.pages[usize::from(self.index[c >> 8])][c & 255]
    }
}
