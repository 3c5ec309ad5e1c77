// What the page does, without a page: `deno run --unstable-webgpu --allow-read check.js [FILE.gguf] [PROMPT]` prints what the model writes greedily.
import init, { Llama } from "./pkg/puna_web.js";

const [file, prompt] = Deno.args;
await init({ module_or_path: await Deno.readFile(new URL("pkg/puna_web_bg.wasm", import.meta.url)) });
const llama = await Llama.load(file ?? "puna-stories", file && await Deno.readFile(file));
console.error(`on ${llama.adapter}`);
let text = "";
const start = performance.now();
const tokens = await llama.write(prompt ?? "Once there was a small llama who", 60, 0, 0n, (piece) => { text += piece; });
console.error(`${tokens} tokens, ${(tokens * 1000 / (performance.now() - start)).toFixed(1)} a second`);
console.log(text);
