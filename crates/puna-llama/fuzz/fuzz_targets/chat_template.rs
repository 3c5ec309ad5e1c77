//! `cargo fuzz run chat_template --sanitizer none -- -max_total_time=60`, with `seeds/chat_template` as a second corpus.
#![no_main]

use libfuzzer_sys::fuzz_target;
use puna_llama::{ChatInput, ChatTemplate, Message};

fuzz_target!(|source: &str| {
    let Ok(template) = ChatTemplate::new(source) else { return };
    let messages =
        [Message::system("Be brief."), Message::user("Hi {{ 1 }} <|eot_id|>"), Message::assistant("Hello."), Message::user("")];
    let template = template.with_fuel(20_000);
    for count in [4, 1, 0] {
        let input = ChatInput::new(&messages[..count]).generation_prompt(count == 4).bos("<s>").eos("</s>");
        let (first, second) = (template.render(&input), template.render(&input));
        // The same conversation is the same text, but for what looks at the clock.
        if let (Ok(first), Ok(second)) = (&first, &second)
            && !source.contains("strftime")
        {
            assert_eq!(first, second);
        }
        assert_eq!(first.is_ok(), second.is_ok());
    }
});
