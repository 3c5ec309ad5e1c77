// The page: loads a model, and shows what it writes.
import init, { Llama } from "./pkg/puna_web.js";

const [status, form, prompt, go, stop, text, file] =
    ["status", "form", "prompt", "go", "stop", "text", "file"].map((id) => document.getElementById(id));
let llama = null;
let stopped = false;

// `bytes`: a promise of the file's, or of nothing for the model that puna carries.
async function load(name, bytes) {
    [go.disabled, file.disabled] = [true, true];
    status.textContent = `Loading ${name}…`;
    try {
        const loaded = await Llama.load(name, await bytes);
        llama?.free();
        llama = loaded;
        status.textContent = `${name}, on ${llama.adapter}. Nothing leaves this computer.`;
    } catch (error) {
        status.textContent = error.message;
    }
    [go.disabled, file.disabled] = [llama === null, false];
}

form.addEventListener("submit", async (event) => {
    event.preventDefault();
    text.textContent = llama.chats ? "" : prompt.value;
    [go.disabled, stop.disabled, file.disabled, stopped] = [true, false, true, false];
    const start = performance.now();
    const seed = BigInt(Math.floor(Math.random() * 2 ** 32));
    try {
        const tokens = await llama.write(prompt.value, 400, 0.6, seed, (piece) => {
            text.append(piece);
            return !stopped;
        });
        const seconds = (performance.now() - start) / 1000;
        status.textContent = `${tokens} tokens, ${(tokens / seconds).toFixed(1)} a second, on ${llama.adapter}.`;
    } catch (error) {
        status.textContent = error.message;
    }
    [go.disabled, stop.disabled, file.disabled] = [false, true, false];
});

stop.addEventListener("click", () => { stopped = true; });

file.addEventListener("change", () => {
    const [chosen] = file.files;
    if (chosen) load(chosen.name, chosen.arrayBuffer().then((bytes) => new Uint8Array(bytes)));
});

if (navigator.gpu) {
    await init();
    await load("the small teller of stories that puna carries");
} else {
    status.textContent = "This browser has no WebGPU: a current Chrome, Edge, Safari or Firefox has.";
}
