//! Which tokens of a conversation count, against an independent reading of the rendered text.

use std::path::PathBuf;

use puna_llama::chat::{ChatInput, ChatTemplate, Message, MetaFormat};
use puna_tokenizer::{Bos, Special, Tokenizer};
use puna_train::data::{Example, Tokenize};
use puna_train::{Kind, Result};
use serde_json::{Value, json};

fn golden(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../puna-conformance/goldens/tokenizers")).join(path)
}

fn template(name: &str) -> ChatTemplate {
    let name = if name == "llama4" { "llama4_vllm_json".to_owned() } else { name.replace('.', "_") };
    ChatTemplate::new(&std::fs::read_to_string(golden(&format!("chat/templates/{name}.jinja"))).unwrap()).unwrap()
}

/// A byte-level tokenizer with the special tokens of all templates.
fn tokenizer() -> Tokenizer {
    let json = std::fs::read(golden("bpe_training/hf_bytelevel_llama3_regex_512.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&json).unwrap();
    let tokens = "<|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|> <|python_tag|> <|header_start|> \
                  <|header_end|> <|eot|> <|eom|> <|im_start|> <|im_end|> <s> </s>";
    for (at, token) in tokens.split_whitespace().enumerate() {
        json["added_tokens"].as_array_mut().unwrap().push(json!({"id": 512 + at, "content": token, "special": true}));
    }
    Tokenizer::from_tokenizer_json(&serde_json::to_vec(&json).unwrap()).unwrap()
}

fn llama2_tokenizer() -> Tokenizer {
    Tokenizer::from_file(golden("files/mistral-v1/tokenizer.model")).unwrap()
}

/// Reads one line with a tokenizer, a template and its variables.
fn read_with(line: &Value, tokenizer: &Tokenizer, template: Option<&ChatTemplate>, variables: &Value) -> Result<Example> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines.jsonl");
    std::fs::write(&path, line.to_string()).unwrap();
    let tokenize = Tokenize::new(tokenizer).template(template);
    let variables = variables.as_object().unwrap();
    let tokenize = variables.iter().fold(tokenize, |tokenize, (name, value)| tokenize.variable(name, value.clone()));
    tokenize.jsonl(&[&path])?.example(0)
}

fn read(line: &Value, template: &ChatTemplate) -> Result<Example> {
    read_with(line, &tokenizer(), Some(template), &json!({}))
}

/// The text of each stretch of tokens that count.
fn counted(example: &Example, tokenizer: &Tokenizer) -> Vec<String> {
    let mut stretches: Vec<Vec<u8>> = Vec::new();
    for (at, (&id, &counts)) in example.ids.iter().zip(&example.counts).enumerate() {
        if counts {
            if at == 0 || !example.counts[at - 1] {
                stretches.push(Vec::new());
            }
            let token = match tokenizer.is_special(id) {
                true => tokenizer.token(id).unwrap().into_bytes(),
                false => tokenizer.token_bytes(id).unwrap().to_vec(),
            };
            stretches.last_mut().unwrap().extend(token);
        }
    }
    stretches.into_iter().map(|bytes| String::from_utf8(bytes).unwrap().replace('\u{2581}', " ")).collect()
}

/// What the assistant writes in a rendered conversation: from behind a header to an end token.
fn said(text: &str, header: &str, ends: &[&str]) -> Vec<String> {
    let mut said = Vec::new();
    for rest in text.split(header).skip(1) {
        let end = ends.iter().filter_map(|end| rest.find(end).map(|at| at + end.len())).min();
        said.extend(end.map(|end| rest[..end].to_owned()));
    }
    said
}

/// Of a template, the assistant's header and what ends its turns.
fn marks(template: &str) -> (&'static str, &'static [&'static str]) {
    match template {
        "llama2" => ("[/INST]", &["</s>"]),
        "llama4" => ("<|header_start|>assistant<|header_end|>\n\n", &["<|eot|>", "<|eom|>"]),
        "smollm2" => ("<|im_start|>assistant\n", &["<|im_end|>"]),
        _ => ("<|start_header_id|>assistant<|end_header_id|>\n\n", &["<|eot_id|>", "<|eom_id|>"]),
    }
}

#[test]
fn in_the_golden_conversations_answers_and_their_ends_count_and_nothing_else() {
    let lines = std::fs::read_to_string(golden("chat/chat.jsonl")).unwrap();
    let (byte_level, sentencepiece) = (tokenizer(), llama2_tokenizer());
    let (mut conversations, mut turns) = (0, 0);
    for line in lines.split('\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_str(line).unwrap();
        let name = line["template"].as_str().unwrap();
        let messages: Vec<Message> = serde_json::from_value(line["messages"].clone()).unwrap();
        let answers = messages.iter().any(|message| message.role() == "assistant");
        if !answers || line["error"].is_string() || messages[0].role() == "assistant" {
            continue;
        }
        let template = template(name);
        let tokenizer = if name == "llama2" { &sentencepiece } else { &byte_level };
        let begin = tokenizer.bos().and_then(|id| tokenizer.token(id)).unwrap_or_default();
        let end = tokenizer.eos().and_then(|id| tokenizer.token(id)).unwrap_or_default();
        let input = ChatInput {
            tools: Some(&line["tools"]).filter(|tools| !tools.is_null()),
            extra: line["extra"].as_object().unwrap().clone(),
            ..ChatInput::new(&messages).bos(&begin).eos(&end).generation_prompt(false)
        };
        let text = template.render(&input).unwrap();
        let case = format!("{name} {}", line["case"]);
        let example = read_with(&line, tokenizer, Some(&template), &line["extra"]).unwrap();
        let (header, ends) = marks(name);
        let expected = said(&text, header, ends);
        assert_eq!(counted(&example, tokenizer), expected, "{case}");
        assert_eq!(example.ids, tokenizer.encode(&text, Special::Parse, Bos::AsWritten).unwrap(), "{case}");
        (conversations, turns) = (conversations + 1, turns + expected.len());
    }
    assert!(conversations >= 40 && turns >= 60, "{conversations} conversations, {turns} turns");
}

fn messages() -> Value {
    json!([
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there"},
        {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "\n\nMe  "}
    ])
}

#[test]
fn what_comes_before_an_answer_is_the_prompt_of_inference() {
    let tokenizer = Tokenizer::from_file(golden("files/smollm2/tokenizer.json")).unwrap();
    let messages = messages();
    let list: Vec<Message> = serde_json::from_value(messages.clone()).unwrap();
    let template = template("smollm2");
    let example = read_with(&json!({"messages": messages}), &tokenizer, Some(&template), &json!({})).unwrap();
    let answers = counted(&example, &tokenizer);
    assert_eq!(answers, ["Hi there<|im_end|>", "\n\nMe  <|im_end|>"]);
    // The header's line end and those of the answer would be one token; inference gives the header's by itself.
    let prompt = template.render(&ChatInput::new(&list[..3])).unwrap();
    let prompt = tokenizer.encode(&prompt, Special::Parse, Bos::AsWritten).unwrap();
    assert_eq!(&example.ids[..prompt.len()], prompt);
    assert!(!example.counts[prompt.len() - 1] && example.counts[prompt.len()]);
    let whole = template.render(&ChatInput::new(&list).generation_prompt(false)).unwrap();
    assert_ne!(example.ids, tokenizer.encode(&whole, Special::Parse, Bos::AsWritten).unwrap());
    assert_eq!(tokenizer.decode(&example.ids).unwrap(), whole);
    // The line end behind the last turn is the template's.
    assert_eq!(example.labels().iter().rev().take_while(|label| **label == u32::MAX).count(), 2);
}

#[test]
fn a_sentencepiece_prompt_may_end_within_a_word() {
    let tokenizer = llama2_tokenizer();
    let example = read_with(&json!({"prompt": "Hel", "completion": "lo there\nand"}), &tokenizer, None, &json!({})).unwrap();
    let prompt = tokenizer.encode("Hel", Special::Text, Bos::Add).unwrap();
    let prompt = prompt.strip_suffix(&[tokenizer.eos().unwrap()]).unwrap_or(&prompt);
    assert_eq!(&example.ids[..prompt.len()], prompt);
    assert_eq!(counted(&example, &tokenizer), ["lo there\nand</s>"]);
    assert!(!example.counts[..prompt.len()].contains(&true));
    assert_eq!(tokenizer.decode(&example.ids).unwrap(), "Hello there\nand");
}

#[test]
fn completions_count_with_their_end_and_prompts_do_not() {
    let tokenizer = tokenizer();
    for (prompt, completion) in [("Question:", " answer"), ("a\n", "\nb"), ("", "all of it"), ("<|end|>", "<|end|>")] {
        let example = read_with(&json!({"prompt": prompt, "completion": completion}), &tokenizer, None, &json!({})).unwrap();
        let prompt = tokenizer.encode(prompt, Special::Text, Bos::AsWritten).unwrap();
        let behind = usize::from(tokenizer.eos().is_some());
        assert_eq!(&example.ids[..prompt.len()], prompt);
        assert_eq!(example.counts.iter().position(|counts| *counts), Some(prompt.len()));
        let written = &example.ids[prompt.len()..example.ids.len() - behind];
        assert_eq!(tokenizer.decode(written).unwrap(), completion);
        assert!(written.iter().all(|id| !tokenizer.is_special(*id)));
        assert!(example.counts[prompt.len()..].iter().all(|counts| *counts));
    }
}

#[test]
fn completions_may_be_messages() {
    let line = json!({"prompt": messages().as_array().unwrap()[..3], "completion": [{"role": "assistant", "content": "Me"}]});
    let example = read(&line, &template("llama3")).unwrap();
    assert_eq!(counted(&example, &tokenizer()), ["Me<|eot_id|>"]);
}

#[test]
fn metas_formats_count_the_same() {
    let tokenizer = tokenizer();
    let llama3 = ChatTemplate::for_meta(MetaFormat::Llama3);
    let example = read(&json!({"messages": messages()}), &llama3).unwrap();
    assert_eq!(counted(&example, &tokenizer), ["Hi there<|eot_id|>", "\n\nMe  <|eot_id|>"]);
    let call = json!([{"function": {"name": "code_interpreter", "arguments": {"code": "1 + 1"}}}]);
    let line = json!({"messages": [
        {"role": "user", "content": "Sum"}, {"role": "assistant", "content": null, "tool_calls": call},
        {"role": "tool", "content": "2"}, {"role": "assistant", "content": "Two"}
    ]});
    let answers = counted(&read(&line, &llama3).unwrap(), &tokenizer);
    assert_eq!(answers, ["<|python_tag|>1 + 1<|eot_id|>", "Two<|eot_id|>"]);

    let tokenizer = llama2_tokenizer();
    let line = json!({"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi </s>"},
        {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}]});
    let template = ChatTemplate::for_meta(MetaFormat::Llama2);
    let example = read_with(&line, &tokenizer, Some(&template), &json!({})).unwrap();
    assert_eq!(counted(&example, &tokenizer), [" Hi </s> </s>", " Me </s>"]);
    let ends = example.ids.iter().filter(|id| Some(**id) == tokenizer.eos()).count();
    assert_eq!(ends, 2, "what the assistant is quoted with is text");
}

#[test]
fn a_template_that_marks_generation_decides() {
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}\
                  {% if loop.last %} (last){% endif %}<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}";
    let line = json!({"messages": messages()});
    let template = ChatTemplate::new(source).unwrap();
    let expected = ["Hi there<|im_end|>\n", "\n\nMe   (last)<|im_end|>\n"];
    assert_eq!(counted(&read(&line, &template).unwrap(), &tokenizer()), expected);

    // Without the marks the same template hides where the answers lie: the prefix of three messages is no prefix.
    let plain = source.replace("{% generation %}", "").replace("{% endgeneration %}", "");
    let plain = plain.replace("{% endfor %}", "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
    let plain = plain.replace("m.content }}<|im_end|>\n{% endif %}", "m.content }}{{ '!' if loop.last }}<|im_end|>\n{% endif %}");
    let error = read(&line, &ChatTemplate::new(&plain).unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::ChatTemplate);
    assert!(error.place().ends_with("lines.jsonl:1"), "{error}");
    assert!(error.message().contains("not the beginning of the whole conversation's: at byte 22, \"!<|im_end|>\\n"), "{error}");
}

#[test]
fn a_template_without_special_tokens_counts_all_of_an_answer() {
    let source =
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    let example = read(&json!({"messages": messages()}), &ChatTemplate::new(source).unwrap()).unwrap();
    assert_eq!(counted(&example, &tokenizer()), ["Hi there\n", "\n\nMe  \n"]);
}

#[test]
fn each_of_several_answers_in_a_row_ends_with_its_end_token() {
    let source = "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}</s>\n{% else %}[{{ m.content }}]\n{% endif %}{% endfor %}";
    let line = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "assistant", "content": "c"}]});
    let example = read(&line, &ChatTemplate::new(source).unwrap()).unwrap();
    assert_eq!(counted(&example, &tokenizer()), ["b</s>", "c</s>"]);
}

#[test]
fn conversations_that_teach_nothing_or_hide_it_are_refused() {
    let refuse = |line: Value, template: Option<&ChatTemplate>, kind: Kind, words: &str| {
        let error = read_with(&line, &tokenizer(), template, &json!({})).unwrap_err();
        assert!(error.place().ends_with("lines.jsonl:1"), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(words), "{error}");
    };
    let (llama3, smollm2, llama2) = (template("llama3"), template("smollm2"), template("llama2"));
    let user = json!({"role": "user", "content": "a"});
    let assistant = json!({"role": "assistant", "content": "b"});
    let none = json!({"messages": [user, {"role": "system", "content": "a"}]});
    refuse(none, Some(&llama3), Kind::NothingToLearn, "no assistant turn among the messages (roles [\"user\", \"system\"])");
    refuse(json!({"messages": []}), Some(&llama3), Kind::NothingToLearn, "no assistant turn");
    refuse(json!({"messages": [user, assistant]}), None, Kind::ChatTemplate, "need a chat template");
    refuse(json!({"messages": [assistant, user]}), Some(&llama2), Kind::ChatTemplate, "roles must alternate");
    // An empty conversation gets no system message, one that begins with an answer does.
    refuse(json!({"messages": [assistant, user]}), Some(&smollm2), Kind::ChatTemplate, "not the beginning");
    let silent = ChatTemplate::new("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}").unwrap();
    refuse(json!({"messages": [user, assistant]}), Some(&silent), Kind::ChatTemplate, "rendered as nothing");
    refuse(json!({"text": ""}), None, Kind::NothingToLearn, "of its tokens (0) none counts");
    refuse(json!({"prompt": "a", "completion": [assistant]}), None, Kind::Data, "text and messages");
    refuse(json!({"chosen": "a", "rejected": "b"}), None, Kind::Data, "Preferences");
}
