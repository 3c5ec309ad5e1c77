//! The model that the library carries.

use puna::llama::Checkpoint;
use puna::prelude::*;

#[test]
fn the_embedded_model_continues_a_story() {
    assert!(puna_stories::MODEL.len() <= 9 << 20, "{} bytes", puna_stories::MODEL.len());
    let checkpoint = Checkpoint::from_gguf("puna-stories", puna_stories::MODEL.to_vec()).unwrap();
    checkpoint.check().unwrap();
    let device = puna::device_with_threads("cpu", std::num::NonZeroUsize::new(2)).unwrap();
    let model = Model::loader().model(&checkpoint, &device).unwrap();
    let prompt = "Once there was a small llama who";
    let write = |options: &Options| model.generate(prompt, options).unwrap().text().unwrap();
    let greedy = write(&Options { max_tokens: Some(60), ..Options::default() });
    // Words and sentences, not noise: most of what it writes are words that its own corpus' stories are made of.
    let words: Vec<&str> = greedy.split_whitespace().collect();
    let common = ["the", "a", "and", "was", "to", "she", "he", "her", "his", "in", "with", "of", "had"];
    let known =
        words.iter().filter(|word| common.contains(&word.trim_matches(|c: char| !c.is_alphabetic()).to_lowercase().as_str()));
    assert!(words.len() > 20 && known.count() * 5 > words.len(), "{greedy}");
    let drawn = SamplingParameters { temperature: 0.6, ..SamplingParameters::default() };
    let options = Options { max_tokens: Some(60), sampling: drawn, seed: 7, ..Options::default() };
    assert_eq!(write(&options), write(&options), "the same seed, the same story");
    // Its end token ends a story within its context.
    let whole = model.generate("", &Options { max_tokens: Some(250), sampling: drawn, ..Options::default() }).unwrap();
    assert!(whole.completion().unwrap().ids.len() > 30);
}
