use crate::decode::Lead;
use crate::load::{GgufTokenizer, pre_tokenizer_name};
use crate::normalize::Normalize;
use crate::split::Split;
use crate::vocabulary::Kind;
use crate::{Error, Result, Tokenizer};

impl Tokenizer {
    /// The tokenizer as the keys `tokenizer.ggml.*` of a GGUF.
    ///
    /// Errors: a pre-tokenizer or a normalizer that has no name there; merges that scores cannot say.
    pub fn to_gguf(&self) -> Result<GgufTokenizer> {
        let mut names = self.names();
        let mut types = Vec::with_capacity(names.len());
        for id in self.vocabulary.ids() {
            types.push(match self.vocabulary.kind(id) {
                Kind::Normal | Kind::Literal => 1,
                Kind::Unknown => 2,
                Kind::Control if self.model.unk == Some(id) => 2,
                Kind::Control => 3,
                Kind::UserDefined => 4,
                Kind::Unused => 5,
                Kind::Gap => {
                    names[id as usize] = format!("[PAD{id}]");
                    5
                }
                Kind::Byte => 6,
            });
        }
        let mut gguf = GgufTokenizer {
            token_types: types,
            bos: self.bos,
            eos: self.eos,
            unk: self.model.unk,
            pad: self.pad,
            add_bos: Some(self.adds_bos()),
            add_eos: Some(self.eos.is_some() && self.template.behind.last().copied() == self.eos),
            ..GgufTokenizer::default()
        };
        if self.is_byte_level() {
            let name = pre_tokenizer_name(&self.splits).ok_or_else(|| {
                Error::unsupported("tokenizer.ggml.pre", "this pre-tokenizer", "Llama 3's, Llama 4's, SmolLM's and GPT-2's are")
            })?;
            gguf.model = "gpt2".into();
            gguf.pre = Some(name.into());
            gguf.merges = self.merge_names(&names).into_iter().map(|(left, right)| format!("{left} {right}").into()).collect();
        } else {
            gguf.model = "llama".into();
            gguf.pre = Some("default".into());
            gguf.add_space_prefix = Some(self.space_prefix()?);
            gguf.scores = if self.scores.is_empty() { self.scores_of_merges()? } else { self.scores.clone() };
        }
        gguf.tokens = names.into_iter().map(String::into_bytes).collect();
        Ok(gguf)
    }

    /// Whether text gets a space in front, where spaces become visible as SentencePiece's.
    fn space_prefix(&self) -> Result<bool> {
        let space = |text: &str| text == "\u{2581}";
        match (self.normalizer.as_slice(), self.splits.as_slice()) {
            ([Normalize::Prepend(prefix), Normalize::Replace(from, to)], []) if space(prefix) && from == " " && space(to) => {
                Ok(true)
            }
            ([Normalize::Replace(from, to)], []) if from == " " && space(to) => Ok(false),
            // Where text begins with a space already, Metaspace adds none, but a GGUF's reader does.
            ([], [Split::Metaspace(metaspace)]) if metaspace.prepend == crate::split::Prepend::Never && !metaspace.split => {
                Ok(false)
            }
            _ => Err(Error::unsupported(
                "tokenizer.ggml",
                "this normalizer",
                "SentencePiece's, with or without a space in front, is",
            )),
        }
    }

    /// Scores by which SentencePiece merges as the list of merges says: all ways to make a token stand together in the list, and
    /// the token has the place of the first.
    fn scores_of_merges(&self) -> Result<Vec<f32>> {
        let mut scores = vec![f32::NEG_INFINITY; self.vocabulary.len()];
        let (mut place, mut before) = (0u32, None);
        for (_, _, _, merged) in self.model.merges.sorted() {
            if before == Some(merged) {
                continue;
            }
            before = Some(merged);
            let score = &mut scores[merged as usize];
            if *score != f32::NEG_INFINITY {
                let token = self.token(merged).unwrap_or_default();
                let what = format!("{token:?}, which merges make at two places of their list");
                return Err(Error::unsupported("tokenizer.ggml.scores", what, "one place for each token is"));
            }
            // 24 bits are exact: more tokens than any vocabulary has.
            *score = -(place as f32);
            place += 1;
        }
        let lowest = -(place as f32);
        scores.iter_mut().filter(|score| **score == f32::NEG_INFINITY).for_each(|score| *score = lowest);
        if self.decoder.lead == Lead::FirstToken {
            return Err(Error::unsupported("tokenizer.ggml", "a Metaspace decoder", "Replace, ByteFallback, Fuse and Strip are"));
        }
        Ok(scores)
    }
}
