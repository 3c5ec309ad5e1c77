//! Which of a repository's files make up a model.

use super::Want;

/// The files to have, and the one that stands for the model; `None` where the folder does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) files: Vec<String>,
    pub(super) target: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SelectError {
    /// Nothing fits; what there is.
    Nothing(String),
    /// Several do.
    Several(Vec<String>),
}

/// Configs and tokenizers, in every spelling that a Llama comes with.
const SMALL: [&str; 13] = [
    "config.json",
    "generation_config.json",
    "params.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
];

pub(super) fn select(names: &[String], want: &Want) -> Result<Selection, SelectError> {
    match want {
        Want::Model => model(names),
        Want::Gguf(kind) => gguf(names, |name| has_word(name, kind), &format!("no GGUF of type {kind}")),
        Want::File(file) if names.contains(file) => match part_of(file) {
            Some(_) if file.ends_with(".gguf") => gguf(names, |name| set_of(name) == set_of(file), ""),
            _ => Ok(Selection { files: vec![file.clone()], target: Some(file.clone()) }),
        },
        Want::File(file) => Err(SelectError::Nothing(format!("no file {file}; {}", listing(names)))),
        Want::Matching(patterns) => {
            let fits = |name: &&String| patterns.iter().any(|pattern| matches(pattern, name));
            let files = names.iter().filter(fits).cloned().collect::<Vec<_>>();
            if files.is_empty() {
                return Err(SelectError::Nothing(format!("no file fits {}; {}", patterns.join(", "), listing(names))));
            }
            Ok(Selection { files, target: None })
        }
    }
}

fn model(names: &[String]) -> Result<Selection, SelectError> {
    let top = names.iter().filter(|name| !name.contains('/')).collect::<Vec<_>>();
    let with = |fits: &dyn Fn(&str) -> bool| top.iter().copied().filter(|name| fits(name)).cloned().collect::<Vec<_>>();
    let numbered = |name: &str, stem: &str, end: &str| {
        let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(end));
        rest.is_some_and(|rest| rest.is_empty() || part_of(name).is_some())
    };
    let candidates: [&dyn Fn(&str) -> bool; 4] = [
        &|name| numbered(name, "model", ".safetensors") || name == "model.safetensors.index.json",
        &|name| name.ends_with(".safetensors") && !name.starts_with("adapter"),
        &|name| numbered(name, "pytorch_model", ".bin") || name == "pytorch_model.bin.index.json",
        &|name| name.starts_with("consolidated") && name.ends_with(".pth"),
    ];
    let is_index = |name: &String| name.ends_with(".index.json");
    let weights = candidates.into_iter().map(with).find(|found| !found.iter().all(is_index));
    match weights {
        Some(mut files) => {
            files.extend(with(&|name| SMALL.contains(&name)));
            Ok(Selection { files, target: None })
        }
        None => gguf(names, |_| true, "no weights that we read"),
    }
}

/// The one GGUF, in all its parts, among those that fit.
fn gguf(names: &[String], fits: impl Fn(&str) -> bool, nothing: &str) -> Result<Selection, SelectError> {
    let files = names.iter().filter(|name| name.to_ascii_lowercase().ends_with(".gguf") && fits(name));
    let mut files = files.cloned().collect::<Vec<_>>();
    files.sort();
    let mut sets = files.iter().map(|name| set_of(name)).collect::<Vec<_>>();
    sets.dedup();
    match sets.len() {
        0 => Err(SelectError::Nothing(format!("{nothing}; {}", listing(names)))),
        1 => Ok(Selection { target: files.first().cloned(), files }),
        _ => Err(SelectError::Several(sets.iter().map(|set| format!("{set}.gguf")).collect())),
    }
}

/// `(n, of)` of a name like `model-00002-of-00004.safetensors`.
pub(super) fn part_of(name: &str) -> Option<(u32, u32)> {
    let stem = &name[..name.rfind('.')?];
    let (rest, of) = stem.rsplit_once("-of-")?;
    let (_, n) = rest.rsplit_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok())?;
    let (n, of) = (number(n)?, number(of)?);
    (n >= 1 && n <= of && of <= 99_999).then_some((n, of))
}

/// The name without its ending, and without its part where it has one.
fn set_of(name: &str) -> &str {
    let stem = name.rfind('.').map_or(name, |at| &name[..at]);
    match part_of(name) {
        Some(_) => stem.rsplit_once("-of-").and_then(|(rest, _)| rest.rsplit_once('-')).map_or(stem, |(set, _)| set),
        None => stem,
    }
}

/// The word in the file's name (not its folder's), not within a longer one: `Q4_K` is not in `model-Q4_K_M.gguf`.
fn has_word(name: &str, word: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_uppercase();
    let word = word.to_ascii_uppercase();
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.match_indices(&word).any(|(at, _)| !name[..at].ends_with(inner) && !name[at + word.len()..].starts_with(inner))
}

/// Whether the name fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let parts = parts.collect::<Vec<_>>();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn listing(names: &[String]) -> String {
    if names.is_empty() {
        return "it is empty".into();
    }
    let shown = names.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(12);
    if more == 0 { format!("it has {shown}") } else { format!("it has {shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[track_caller]
    fn check(all: &[&str], want: Want, files: &[&str], target: Option<&str>) {
        let mut selection = select(&names(all), &want).unwrap();
        selection.files.sort();
        let mut files = names(files);
        files.sort();
        assert_eq!(selection, Selection { files, target: target.map(str::to_owned) });
    }

    #[test]
    fn safetensors_win_over_other_weights() {
        let all = [
            "README.md",
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "original/consolidated.00.pth",
            "tokenizer.json",
        ];
        check(&all, Want::Model, &["model.safetensors", "config.json", "tokenizer.json"], None);
        let all = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "consolidated.safetensors",
        ];
        check(&all, Want::Model, &all[..3], None);
        let all = ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json", "training_args.bin", "config.json"];
        check(&all, Want::Model, &[all[0], all[1], all[3]], None);
        let all = ["consolidated.00.pth", "consolidated.01.pth", "params.json", "tokenizer.model", "checklist.chk"];
        check(&all, Want::Model, &all[..4], None);
    }

    #[test]
    fn a_gguf_is_chosen_by_type_and_comes_with_all_its_parts() {
        let all =
            ["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "big/m-Q8_0-00001-of-00002.gguf", "big/m-Q8_0-00002-of-00002.gguf", "README.md"];
        check(&all, Want::Gguf("q4_k_m".into()), &[all[0]], Some(all[0]));
        check(&all, Want::Gguf("Q8_0".into()), &[all[2], all[3]], Some(all[2]));
        check(&all, Want::File(all[3].into()), &[all[2], all[3]], Some(all[2]));
        assert!(matches!(select(&names(&all), &Want::Gguf("Q4_K".into())), Err(SelectError::Nothing(_))));
        assert!(matches!(select(&names(&all), &Want::Gguf("8_0".into())), Err(SelectError::Nothing(_))));
        let Err(SelectError::Several(choices)) = select(&names(&all), &Want::Model) else { panic!() };
        assert_eq!(choices, ["big/m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf"]);
        check(&all[2..], Want::Model, &[all[2], all[3]], Some(all[2]));
    }

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name, expected) in [
            ("*.json", "a/config.json", true),
            ("config.json", "config.json", true),
            ("config", "config.json", false),
            ("m*of*.safetensors", "model-1-of-2.safetensors", true),
            ("a*a", "a", false),
            ("*", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn parts_are_numbered_from_one_to_their_count() {
        assert_eq!(part_of("a-00002-of-00004.safetensors"), Some((2, 4)));
        for name in ["a-00005-of-00004.bin", "a-00000-of-00004.bin", "a-x-of-00004.bin", "a-+1-of-00004.bin", "a-1-of-.bin", "a"]
        {
            assert_eq!(part_of(name), None, "{name}");
        }
    }
}
