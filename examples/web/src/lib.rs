//! A Llama in a browser, on WebGPU: what the page beside it calls. The README says how to build and open it.
#![cfg(target_arch = "wasm32")]

use js_sys::Function;
use puna::llama::Checkpoint;
use puna::prelude::*;
use puna::wgpu::{Choice, Options as DeviceOptions, request};
use wasm_bindgen::prelude::*;

/// Errors become JavaScript's, with puna's own words.
fn told(error: impl std::fmt::Display) -> JsError {
    JsError::new(&error.to_string())
}

/// A model on the browser's GPU.
#[wasm_bindgen]
pub struct Llama {
    model: Model,
    adapter: String,
}

#[wasm_bindgen]
impl Llama {
    /// Loads a GGUF file's bytes; without any, the small teller of stories that puna carries. Errors name the file.
    pub async fn load(name: String, gguf: Option<Vec<u8>>) -> Result<Llama, JsError> {
        let bytes = gguf.unwrap_or_else(|| puna_stories::MODEL.to_vec());
        let checkpoint = Checkpoint::from_gguf(&name, bytes).map_err(told)?;
        let device = request(&Choice::Any, DeviceOptions::default()).await.map_err(told)?;
        let model = Model::loader().model(&checkpoint, &device).map_err(told)?;
        let adapter = puna::wgpu::adapter(&device).unwrap_or_default();
        Ok(Llama { model, adapter })
    }

    /// The GPU that it runs on.
    #[wasm_bindgen(getter)]
    pub fn adapter(&self) -> String {
        self.adapter.clone()
    }

    /// Whether it answers; else it continues what it is given.
    #[wasm_bindgen(getter)]
    pub fn chats(&self) -> bool {
        self.model.chat_template.is_some()
    }

    /// Answers, or continues, a text: `piece(text)` is called as it comes, and ends it by returning `false`. The number of tokens drawn.
    pub async fn write(
        &self,
        text: &str,
        max_tokens: usize,
        temperature: f32,
        seed: u64,
        piece: &Function,
    ) -> Result<usize, JsError> {
        let sampling = SamplingParameters { temperature, ..SamplingParameters::default() };
        let options = Options { max_tokens: Some(max_tokens), sampling, seed, ..Options::default() };
        let generation = match self.model.chat_template {
            Some(_) => self.model.chat(&[Message::user(text)], &options),
            None => self.model.generate(text, &options),
        };
        let mut generation = generation.map_err(told)?;
        while let Some(next) = generation.next_async().await {
            let text = next.map_err(told)?.text;
            let answer = piece.call1(&JsValue::NULL, &JsValue::from_str(&text));
            if answer.is_ok_and(|answer| answer == JsValue::FALSE) {
                break;
            }
        }
        Ok(generation.timings().tokens)
    }
}
