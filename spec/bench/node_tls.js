// node_tls: 1 GiB one way through Node.js' tls in 64 KiB writes; what the pipes are held against.
//
//   node node_tls.js sink             prints "port N", swallows what arrives until its standard input ends, and sends
//                                     one byte back when the peer has sent all
//   node node_tls.js send PORT BYTES  prints MiB/s, until the sink has all of them
//
// KEY and CERTIFICATE in the environment name PEM files of a P-256 key; both sides use and ask for one, as pipes do.
"use strict";
const fs = require("fs");
const tls = require("tls");

const [mode, port, bytes] = process.argv.slice(2);
const shared = {
  key: fs.readFileSync(process.env.KEY),
  cert: fs.readFileSync(process.env.CERTIFICATE),
  minVersion: "TLSv1.3",
  ciphers: "TLS_AES_128_GCM_SHA256",
  rejectUnauthorized: false,
};

if (mode === "sink") {
  const server = tls.createServer({ ...shared, requestCert: true, allowHalfOpen: true }, (socket) => {
    socket.on("data", () => {});
    socket.on("end", () => socket.end("x"));
    socket.on("error", () => {});
  });
  server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));
  process.stdin.on("end", () => process.exit(0)).resume();
} else if (mode === "send") {
  const total = Number(bytes);
  const block = Buffer.alloc(64 * 1024);
  let started = 0n;
  let sent = 0;
  const socket = tls.connect({ ...shared, host: "127.0.0.1", port: Number(port), allowHalfOpen: true }, () => {
    started = process.hrtime.bigint();
    more();
  });
  const more = () => {
    while (sent < total) {
      sent += block.length;
      if (!socket.write(block)) {
        socket.once("drain", more);
        return;
      }
    }
    socket.end();
  };
  socket.on("data", () => {
    const seconds = Number(process.hrtime.bigint() - started) / 1e9;
    console.log((total / 1048576 / seconds).toFixed(1));
    process.exit(0);
  });
} else {
  console.error("usage: node_tls.js sink | send PORT BYTES");
  process.exit(2);
}
