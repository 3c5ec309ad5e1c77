//! Plain text to documents, a stretch at a time.

use std::path::Path;

use puna_tokenizer::Special;

use super::dataset::Each;
use super::encode::Encoder;
use super::lines::Lines;
use super::token_writer::TokenWriter;
use crate::error::{Error, Kind, Result};

/// The line that stands between documents.
pub(super) const SEPARATOR: &str = "<|endoftext|>";

/// About how many bytes of a document are encoded at a time.
const STRETCH: usize = 1 << 20;

/// How many bytes are held at most where no place to cut is found.
const MOST: usize = 16 * STRETCH;

/// Appends a file's documents; calls `each` as it goes with the bytes read and what there is.
pub(super) fn read(path: &Path, encoder: &Encoder<'_>, to: &mut TokenWriter<'_>, each: &mut Each<'_>) -> Result<()> {
    documents(Lines::open(path)?, (STRETCH, MOST), encoder, to, each)
}

/// As [`read`], with [`STRETCH`] and [`MOST`] as given.
fn documents(
    mut lines: Lines,
    stretch: (usize, usize),
    encoder: &Encoder<'_>,
    to: &mut TokenWriter<'_>,
    each: &mut Each<'_>,
) -> Result<()> {
    let mut document = Document { place: None, held: String::new(), tokens: 0, stretch, look: stretch.0 };
    let mut begins_line = true;
    while let Some(piece) = lines.next(stretch.0, false)? {
        let separates = begins_line && piece.trim_end_matches(['\r', '\n']) == SEPARATOR;
        let blank = piece.trim().is_empty();
        begins_line = piece.ends_with('\n');
        if separates {
            document.end(encoder, to)?;
        } else {
            document.held.push_str(piece);
            if !blank && document.place.is_none() {
                document.place = Some(lines.place());
            }
            document.shorten(&lines, encoder, to)?;
        }
        each(lines.bytes(), to);
    }
    document.end(encoder, to)
}

/// A document that is being read.
struct Document {
    /// Where its first text stands; `None` while there is none.
    place: Option<String>,
    /// What of it is not encoded yet.
    held: String,
    /// How many tokens of it are written.
    tokens: usize,
    /// About how many bytes to encode at a time, and how many to hold at most.
    stretch: (usize, usize),
    /// How many bytes make it worth to look for a place to cut.
    look: usize,
}

impl Document {
    /// Encodes most of what is held, if it is much.
    fn shorten(&mut self, lines: &Lines, encoder: &Encoder<'_>, to: &mut TokenWriter<'_>) -> Result<()> {
        let (stretch, most) = self.stretch;
        if self.held.len() < self.look {
            return Ok(());
        }
        if self.place.is_none() {
            if self.held.len() < most {
                return Ok(());
            }
            return Err(Error::data(lines.place(), format!("{} bytes of white space before any text", self.held.len())));
        }
        let cut = cut(&self.held).or_else(|| {
            // Text without words: two bytes stay, which may be a line end that goes with the document's.
            let near = |at: &usize| self.held.is_char_boundary(*at);
            if self.held.len() >= most { (1..self.held.len() - 1).rev().find(near) } else { None }
        });
        let Some(cut) = cut else {
            // Looking at all of it again for each line would take the square of its length.
            self.look = (2 * self.held.len()).min(most);
            return Ok(());
        };
        self.look = stretch;
        let rest = self.held.split_off(cut);
        self.write(encoder, to)?;
        self.held = rest;
        Ok(())
    }

    /// Encodes what is held.
    fn write(&mut self, encoder: &Encoder<'_>, to: &mut TokenWriter<'_>) -> Result<()> {
        let ids = match self.tokens {
            0 => {
                let ids = encoder.beginning(&self.held)?;
                encoder.before().into_iter().chain(ids).collect()
            }
            _ => encoder.continuation(&self.held, Special::Text)?,
        };
        self.tokens += ids.len();
        to.append(&ids, None)
    }

    /// Ends the document, if there is any text in it, and begins the next.
    fn end(&mut self, encoder: &Encoder<'_>, to: &mut TokenWriter<'_>) -> Result<()> {
        if let Some(place) = self.place.take() {
            // The line end before a separator is the separator's; the file's last one is likewise none of the text.
            let text = self.held.strip_suffix('\n').unwrap_or(&self.held);
            self.held.truncate(text.strip_suffix('\r').unwrap_or(text).len());
            self.write(encoder, to)?;
            if let Some(end) = encoder.behind() {
                to.append(&[end], None)?;
                self.tokens += 1;
            }
            if self.tokens < 2 {
                let message = "a document of one token, so there is nothing to predict; two at least";
                return Err(Error::new(Kind::NothingToLearn, place, message));
            }
            to.end_document();
        }
        self.held.clear();
        self.look = self.stretch.0;
        self.tokens = 0;
        Ok(())
    }
}

/// The last place where text can be cut without a token that would have gone across: no token of Llama's tokenizers goes beyond a
/// single line end between two words, nor beyond the beginning of a single space between them.
fn cut(text: &str) -> Option<usize> {
    let solid = |c: Option<char>| c.is_some_and(|c| !c.is_whitespace());
    let between = |at: usize| solid(text[..at].chars().next_back()) && solid(text[at + 1..].chars().next());
    let line_end = text.rmatch_indices('\n').map(|(at, _)| at).find(|at| between(*at)).map(|at| at + 1);
    line_end.or_else(|| text.rmatch_indices(' ').map(|(at, _)| at).find(|at| between(*at)))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use puna_tokenizer::{Bos, Tokenizer};
    use serde_json::Map;

    use super::super::token_writer::fill_memory;
    use super::*;

    const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens/tokenizers");

    fn tokenizer(name: &str) -> Tokenizer {
        Tokenizer::from_file(format!("{GOLDENS}/{name}")).unwrap()
    }

    /// The ids of a file's documents, read in stretches of so many bytes.
    fn read(text: &[u8], stretch: (usize, usize), tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>> {
        let encoder = Encoder::new(tokenizer, None, Map::new(), tokenizer.eos())?;
        let file = fill_memory(Path::new("f"), tokenizer.vocab_size(), |to| {
            let lines = Lines::new(Path::new("f"), Box::new(Cursor::new(text.to_vec())));
            documents(lines, stretch, &encoder, to, &mut |_, _| {})
        })?;
        (0..file.documents()).map(|document| Ok(file.example(document)?.ids)).collect()
    }

    #[track_caller]
    fn check(text: &str, documents: &[&str]) {
        for name in ["files/smollm2/tokenizer.json", "files/mistral-v1/tokenizer.model"] {
            let tokenizer = tokenizer(name);
            let read = read(text.as_bytes(), (STRETCH, MOST), &tokenizer).unwrap();
            let encode = |text: &&str| {
                let ids = tokenizer.encode(text, Special::Text, Bos::Add).unwrap();
                ids.into_iter().chain(tokenizer.eos()).collect::<Vec<_>>()
            };
            assert_eq!(read, documents.iter().map(encode).collect::<Vec<_>>(), "{text:?}");
        }
    }

    #[test]
    fn documents_lie_between_separators() {
        check("a\nb\n<|endoftext|>\nc d\n", &["a\nb", "c d"]);
        check("<|endoftext|>\r\na\r\nb\r\n<|endoftext|>\r\n\r\n<|endoftext|>\r\n c d", &["a\r\nb", " c d"]);
        check("a <|endoftext|>\n<|endoftext|> b\n\n<|endoftext|>", &["a <|endoftext|>\n<|endoftext|> b\n"]);
        check("\u{feff}a b", &["a b"]);
    }

    #[test]
    fn stretches_give_the_ids_of_the_whole() {
        let corpus = std::fs::read_to_string(format!("{GOLDENS}/bpe_training/corpus.txt")).unwrap();
        // Lines, blank lines, a document of one line, spaces in numbers.
        let text: String = corpus.chars().take(20_000).collect();
        let one_line = text.replace('\n', " ");
        let wide = text.replace(' ', "  ").replace('\n', "\n\n");
        let names = ["files/smollm2/tokenizer.json", "files/mistral-v1/tokenizer.model", "bpe_training/hf_bytelevel_512.json"];
        for name in names.into_iter().chain(["bpe_training/hf_bytelevel_llama3_regex_512.json"]) {
            let tokenizer = tokenizer(name);
            for text in [&text, &one_line, &wide] {
                let whole = read(text.as_bytes(), (STRETCH, MOST), &tokenizer).unwrap();
                let stripped = text.strip_suffix('\n').unwrap_or(text);
                let encoded = tokenizer.encode(stripped, Special::Text, Bos::AsWritten).unwrap();
                let begins = usize::from(tokenizer.adds_bos());
                assert_eq!(whole[0][begins..begins + encoded.len()], encoded, "{name}");
                for stretch in [1, 50, 1000] {
                    assert!(read(text.as_bytes(), (stretch, MOST), &tokenizer).unwrap() == whole, "{name}, {stretch}");
                }
            }
        }
    }

    #[test]
    fn text_without_words_is_cut_anyway_and_says_the_same() {
        let tokenizer = tokenizer("files/smollm2/tokenizer.json");
        for text in ["\u{20ac}\u{1f600}".repeat(300), " \n".repeat(500) + "x", "x".to_owned() + &"\n \n".repeat(500)] {
            let documents = read(text.as_bytes(), (16, 400), &tokenizer);
            if text.starts_with(' ') {
                assert!(documents.unwrap_err().to_string().contains("white space before any text"));
                continue;
            }
            let documents = documents.unwrap();
            let decoded = tokenizer.decode(&documents[0]).unwrap();
            assert_eq!(decoded, text.strip_suffix('\n').unwrap_or(&text));
        }
    }

    #[test]
    fn many_lines_without_a_place_to_cut_take_no_square_of_time() {
        let tokenizer = tokenizer("bpe_training/hf_bytelevel_512.json");
        let start = std::time::Instant::now();
        let text = "x".to_owned() + &"\n".repeat(2 << 20) + "x";
        assert_eq!(read(text.as_bytes(), (STRETCH, MOST), &tokenizer).unwrap().len(), 1);
        // A second with optimization; the square would take hours.
        assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
    }

    #[test]
    fn a_document_that_teaches_nothing_is_named() {
        let tokenizer = Tokenizer::from_tokenizer_json(
            br#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"}}"#,
        )
        .unwrap();
        let read = |text: &str| read(text.as_bytes(), (STRETCH, MOST), &tokenizer);
        assert_eq!(read("ab").unwrap(), [[0, 1]]);
        let error = read("ab\n<|endoftext|>\n\nb").unwrap_err();
        assert_eq!((error.place(), error.kind()), ("f:4", Kind::NothingToLearn));
        assert_eq!(read("\n<|endoftext|>\n \n").unwrap_err().kind(), Kind::Empty);
    }
}
