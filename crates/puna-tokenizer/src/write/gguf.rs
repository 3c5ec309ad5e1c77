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
            let refuse = |what: &str, known: &str| Error::unsupported("tokenizer.ggml.pre", what, known);
            let (name, whole) = pre_tokenizer_name(&self.splits).ok_or_else(|| {
                refuse("this pre-tokenizer", "Llama 3's, Llama 4's, SmolLM's, GPT-2's and llama.cpp's default are")
            })?;
            // Where merging makes each token of its own bytes, it is all one.
            if whole != self.model.takes_whole()
                && !self.vocabulary.ids().all(|id| self.model.merges_to_itself(id, &self.vocabulary))
            {
                let what = format!("{name} with ignore_merges {}", !whole);
                return Err(refuse(&what, &format!("{whole} goes with it, or tokens that merging makes of their bytes")));
            }
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

    /// Scores by which SentencePiece merges as the list of merges says: the ways to make a token stand together in the list, and
    /// the token has their place. Runs of one character (Llama's of spaces) are mixed there, and have one place together: the
    /// leftmost goes first, as in the SentencePiece models that such lists were made from.
    fn scores_of_merges(&self) -> Result<Vec<f32>> {
        if self.decoder.lead == Lead::FirstToken {
            return Err(Error::unsupported("tokenizer.ggml", "a Metaspace decoder", "Replace, ByteFallback, Fuse and Strip are"));
        }
        let mut places: Vec<Vec<u32>> = Vec::new();
        let mut place_of = vec![None; self.vocabulary.len()];
        for (_, _, _, merged) in self.model.merges.sorted() {
            let first = place_of[merged as usize].unwrap_or(places.len());
            if first == places.len() {
                places.push(vec![merged]);
            }
            // What stands between the ways to make this token has its place.
            for place in places.split_off(first + 1) {
                places[first].extend(place);
            }
            places[first].iter().for_each(|token| place_of[*token as usize] = Some(first));
        }
        if let Some(token) = places.iter().filter(|tokens| tokens.len() > 1).flatten().find(|token| !self.is_run(**token)) {
            let what = format!("{:?}, which merges make at several places of their list", self.token(*token).unwrap_or_default());
            return Err(Error::unsupported("tokenizer.ggml.scores", what, "one place for each token is"));
        }
        // 24 bits are exact: more tokens than any vocabulary has. What no merge makes is behind all that they make.
        Ok(place_of.into_iter().map(|place| -(place.unwrap_or(places.len()) as f32)).collect())
    }

    /// Whether a token is one character over and over.
    fn is_run(&self, token: u32) -> bool {
        let text = self.token(token).unwrap_or_default();
        text.chars().all(|c| text.starts_with(c))
    }
}
