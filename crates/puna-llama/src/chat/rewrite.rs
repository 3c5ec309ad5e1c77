//! What a template's source needs before the engine compiles it.
//!
//! * Line ends become `\n`, as Jinja2 does.
//! * `{% generation %}` blocks (transformers marks with them what the assistant said) become `{% with %}` blocks.
//! * After each tag that binds a variable, a call of [`GUARD`] on the bound names is added. The engine frees and compares
//!   values recursively, so a hostile template that nests a list within a list in a loop (or a namespace within itself)
//!   would exhaust the stack. With every variable bounded in depth, and every tag bounded in the tokens that can add depth
//!   before the next variable is bound, no value can become deep. The same bound keeps the engine's parser, which recurses
//!   without a limit over `not not ...` and `a + a + ...`, off the end of the stack.
//!
//! The scanner follows the engine's own lexer: tags, comments, raw blocks, strings with escapes, bracket balance.

use super::ChatError;

/// The function, defined by the environment, that refuses values nested too deeply or too large.
pub(super) const GUARD: &str = "__puna_bounded";

/// Words, brackets and operators in one tag, strings aside; the largest in the goldens have 20.
const MAX_TOKENS: usize = 512;

/// Commas, colons and strings in one tag: the items of lists and maps, which lie side by side.
const MAX_ITEMS: usize = 4096;

/// `elif` tags in the whole source, which the parser nests.
const MAX_ELIF: usize = 512;

/// The source to compile. Errors: a tag with too many tokens, too many `elif`.
pub(super) fn rewrite(source: &str) -> Result<String, ChatError> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() + source.len() / 4);
    let mut scanner = Scanner { source: &source, at: 0, balance: 0 };
    let (mut copied, mut elifs) = (0, 0);
    while let Some(tag) = scanner.next_tag()? {
        out.push_str(&source[copied..tag.start]);
        copied = tag.end;
        let text = &source[tag.start..tag.end];
        let (keyword, body) = tag.keyword_and_body(&source);
        elifs += usize::from(keyword == "elif");
        if elifs > MAX_ELIF {
            let message = format!("more than {MAX_ELIF} elif");
            return Err(ChatError::Syntax { line: line_of(&source, tag.start), message });
        }
        match keyword {
            "generation" | "endgeneration" if body.trim().is_empty() => {
                out.push_str(&text.replacen("generation", "with", 1));
                continue;
            }
            _ => out.push_str(text),
        }
        let names = bound_names(keyword, body);
        if !names.is_empty() {
            // The same end as the tag before: the white space after the two is then treated as after the one.
            let end = &source[tag.body_end..tag.end];
            out.push_str(&format!("{{%do {GUARD}({}){end}", names.join(",")));
        }
    }
    out.push_str(&source[copied..]);
    Ok(out)
}

fn line_of(source: &str, at: usize) -> usize {
    source[..at].matches('\n').count() + 1
}

/// A block tag, `{% ... %}`.
struct Tag {
    start: usize,
    /// After `{%` and its white-space sign.
    body_start: usize,
    /// Before the white-space sign of the end, and `%}`.
    body_end: usize,
    end: usize,
}

impl Tag {
    fn keyword_and_body<'s>(&self, source: &'s str) -> (&'s str, &'s str) {
        let body = source[self.body_start..self.body_end].trim_matches(|c: char| c.is_ascii_whitespace());
        let length = body.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        body.split_at(length)
    }
}

struct Scanner<'s> {
    source: &'s str,
    at: usize,
    /// Open brackets; carried across tags, as the engine does.
    balance: i32,
}

impl Scanner<'_> {
    /// The next block tag. `None` at the end, or where the engine will report what is not closed.
    fn next_tag(&mut self) -> Result<Option<Tag>, ChatError> {
        let bytes = self.source.as_bytes();
        loop {
            let Some(found) = self.source[self.at..].find('{') else { return Ok(None) };
            let start = self.at + found;
            let signed = usize::from(matches!(bytes.get(start + 2), Some(b'-' | b'+')));
            let body_start = start + 2 + signed;
            match bytes.get(start + 1) {
                Some(b'#') => match self.source[body_start..].find("#}") {
                    Some(length) => self.at = body_start + length + 2,
                    None => return Ok(None),
                },
                Some(b'{') => {
                    if self.close(body_start, b"}}")?.is_none() {
                        return Ok(None);
                    }
                }
                Some(b'%') => {
                    if let Some(after) = basic_tag(self.source, body_start, "raw") {
                        match self.end_of_raw(after) {
                            Some(end) => self.at = end,
                            None => return Ok(None),
                        }
                        continue;
                    }
                    let Some(body_end) = self.close(body_start, b"%}")? else { return Ok(None) };
                    return Ok(Some(Tag { start, body_start, body_end, end: self.at }));
                }
                _ => self.at = start + 1,
            }
        }
    }

    /// Moves behind the end of the tag that is open; gives the place where its body ends.
    fn close(&mut self, from: usize, end: &[u8; 2]) -> Result<Option<usize>, ChatError> {
        let bytes = self.source.as_bytes();
        let (mut at, mut tokens, mut items) = (from, 0, 0);
        while at < bytes.len() {
            if self.balance == 0 {
                let signed = usize::from(matches!(bytes[at], b'-' | b'+'));
                if bytes[at + signed..].starts_with(end) {
                    self.at = at + signed + 2;
                    return Ok(Some(at));
                }
            }
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            match bytes[at] {
                quote @ (b'\'' | b'"') => {
                    at += 1;
                    while at < bytes.len() && bytes[at] != quote {
                        at += 1 + usize::from(bytes[at] == b'\\');
                    }
                    items += 1;
                }
                b',' | b':' => items += 1,
                byte if byte.is_ascii_whitespace() || (word(byte) && word(bytes[at - 1])) => {}
                byte => {
                    self.balance += match byte {
                        b'(' | b'[' | b'{' => 1,
                        b')' | b']' | b'}' => -1,
                        _ => 0,
                    };
                    tokens += 1;
                }
            }
            if tokens > MAX_TOKENS || items > MAX_ITEMS {
                let message = format!("a tag with more than {MAX_TOKENS} words and operators, or {MAX_ITEMS} items");
                return Err(ChatError::Syntax { line: line_of(self.source, from), message });
            }
            at += 1;
        }
        self.at = bytes.len();
        Ok(None)
    }

    fn end_of_raw(&self, mut at: usize) -> Option<usize> {
        while let Some(found) = self.source[at..].find("{%") {
            at += found + 2;
            let signed = usize::from(matches!(self.source.as_bytes().get(at), Some(b'-' | b'+')));
            if let Some(end) = basic_tag(self.source, at + signed, "endraw") {
                return Some(end);
            }
        }
        None
    }
}

/// Where the tag that consists of `name` alone, whose body starts at `at`, ends.
fn basic_tag(source: &str, at: usize, name: &str) -> Option<usize> {
    let space = |c: char| c.is_ascii_whitespace();
    let rest = source[at..].trim_start_matches(space).strip_prefix(name)?.trim_start_matches(space);
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
    Some(source.len() - rest.len())
}

/// The variables that a tag binds and that its own expressions can make deep.
fn bound_names(keyword: &str, body: &str) -> Vec<String> {
    match keyword {
        // `a = x`, `a, ns.b = x`, and blocks, which are text unless a filter changes that
        "set" => match body.find(['=', '|']) {
            Some(end) => names_of(&body[..end]),
            None => Vec::new(),
        },
        // `a = x, (b, c) = y`
        "with" => {
            outer_parts(body).iter().filter_map(|part| part.split_once('=')).flat_map(|(target, _)| names_of(target)).collect()
        }
        // `name(a, b = x)`; `(a) name(x)`
        "macro" | "call" => {
            let body = body.trim_start();
            let open = if keyword == "macro" { body.find('(') } else { body.starts_with('(').then_some(0) };
            let Some(open) = open else { return Vec::new() };
            let length = matching(&body[open..]).unwrap_or(body.len() - open);
            let parameters = outer_parts(&body[open + 1..open + length]);
            parameters.iter().flat_map(|part| names_of(part.split_once('=').map_or(*part, |(name, _)| name))).collect()
        }
        // the items of a loop come from a bounded value, unless the loop calls itself with another
        "for" if body.contains("recursive") => {
            let words = body.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            words.take_while(|word| *word != "in").map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// The names in an assignment's target. A target that is none gives nothing: the engine refuses it.
fn names_of(target: &str) -> Vec<String> {
    let name = |part: &str| part.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>();
    let names = target.split([',', '(', ')']).map(name).filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let valid = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    if names.iter().all(valid) { names } else { Vec::new() }
}

/// Splits at the commas that stand in no bracket and no string.
fn outer_parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    walk(text, |at, byte, depth| {
        if byte == b',' && depth == 0 {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        true
    });
    parts.push(&text[start..]);
    parts
}

/// Where the bracket that the text starts with is closed.
fn matching(text: &str) -> Option<usize> {
    let mut end = None;
    walk(text, |at, _, depth| {
        if depth == 0 && at > 0 {
            end = Some(at);
        }
        end.is_none()
    });
    end
}

/// Visits the bytes outside of strings with the bracket depth after them, until `visit` says no.
fn walk(text: &str, mut visit: impl FnMut(usize, u8, i32) -> bool) {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            quote @ (b'\'' | b'"') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
                at += 1;
                continue;
            }
            _ => {}
        }
        if !visit(at, bytes[at], depth) {
            return;
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(rewrite(source).unwrap().replace(GUARD, "G"), expected);
    }

    #[test]
    fn every_binding_is_followed_by_its_check() {
        check("{% set a = [1] %}", "{% set a = [1] %}{%do G(a)%}");
        check("{%- set ns . a, (b) = 1, 2 -%} x", "{%- set ns . a, (b) = 1, 2 -%}{%do G(ns.a,b)-%} x");
        check("{% set a %}text{% endset %}", "{% set a %}text{% endset %}");
        check("{% set a | list %}text{% endset %}", "{% set a | list %}{%do G(a)%}text{% endset %}");
        check("{% with a = f(x=1), (b, c) = [1, 2] +%}", "{% with a = f(x=1), (b, c) = [1, 2] +%}{%do G(a,b,c)+%}");
        check("{% macro m(a, b=[1, ')'], c='=') %}", "{% macro m(a, b=[1, ')'], c='=') %}{%do G(a,b,c)%}");
        check("{% call(a) m(1) %}", "{% call(a) m(1) %}{%do G(a)%}");
        check("{% call m(1) %}", "{% call m(1) %}");
        check("{% for a, b in c recursive %}", "{% for a, b in c recursive %}{%do G(a,b)%}");
        check("{% for(a,(b))in[c]recursive %}", "{% for(a,(b))in[c]recursive %}{%do G(a,b)%}");
        check("{% for a in c if a %}", "{% for a in c if a %}");
    }

    #[test]
    fn text_that_only_looks_like_a_tag_stays() {
        for source in [
            "{# {% set a = 1 %} #}x",
            "{% raw %}{% set a = 1 %}{%- endraw -%}",
            "{{ '{% set a = 1 %}' }}",
            "{{ '\\'{% set a = 1 %}' }}",
            "{ % set a = 1 %}",
            "{% set a = 1",
        ] {
            check(source, source);
        }
    }

    #[test]
    fn generation_blocks_become_scopes_and_line_ends_are_unix() {
        check("a\r\n{%- generation -%}\rb{% endgeneration %}", "a\n{%- with -%}\nb{% endwith %}");
    }
}
