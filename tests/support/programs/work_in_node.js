// Be a T3 that does what Node does besides: it makes programs in memory and threads, and asks for
// its user and its network. What it found goes to standard error, as JSON; then it says `worked`.
const os = require("node:os");
const { Worker } = require("node:worker_threads");
const { execFileSync } = require("node:child_process");

function userName() {
    try {
        return os.userInfo().username;
    } catch (error) {
        return String(error);
    }
}

let sum = 0;
for (let i = 0; i < 3e7; i++) sum = (sum + i * i) % 1000003;
new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]));
const found = {
    sum,
    home: os.homedir(),
    uid: process.getuid(),
    net: Object.keys(os.networkInterfaces()),
    child: execFileSync("/usr/bin/env", ["true"]).length,
    user: userName(),
};
console.error(JSON.stringify(found));
const thread = "require('node:worker_threads').parentPort.postMessage(1)";
new Worker(thread, { eval: true }).on("message", () => {
    console.log("worked");
    process.exit(1);
});
