// A peer in a browser, for browser.rs. It is no part of gt and shares nothing with etc/p2p.html.
async function peer(label) {
  const pc = new RTCPeerConnection();
  const first = pc.createDataChannel(label);
  const open = new Promise((resolve, reject) => {
    first.onopen = resolve;
    first.onerror = e => reject(e.error);
    pc.onconnectionstatechange = () => pc.connectionState === "failed" && reject("failed");
  });
  await pc.setLocalDescription(await pc.createOffer());
  await new Promise(resolve => {
    const look = () => pc.iceGatheringState === "complete" && resolve();
    pc.onicegatheringstatechange = look;
    look();
  });
  const json = new TextEncoder().encode(JSON.stringify({ type: "offer", sdp: pc.localDescription.sdp }));
  const body = new Uint8Array([json.length >> 8, json.length & 255, ...json]);
  const answer = await fetch("/", { method: "XP", body, credentials: "omit" });
  if (answer.status !== 200) throw `XP: ${answer.status}`;
  const bytes = new Uint8Array(await answer.arrayBuffer());
  for (let at = 0; at < bytes.length;) {
    const end = at + 2 + bytes[at] * 256 + bytes[at + 1];
    const message = JSON.parse(new TextDecoder().decode(bytes.subarray(at + 2, end)));
    if (message.type) await pc.setRemoteDescription(message);
    else await pc.addIceCandidate(message);
    at = end;
  }
  await open;
  return { pc, first };
}

// Sends `request` in a channel of its own; answers all that comes until it closes.
function exchange({ pc }, label, request) {
  return new Promise((resolve, reject) => {
    const channel = pc.createDataChannel(label), parts = [];
    channel.binaryType = "arraybuffer";
    channel.onopen = () => channel.send(request);
    channel.onmessage = e => parts.push(e.data);
    channel.onerror = e => reject(e.error);
    channel.onclose = async () => resolve(new Uint8Array(await new Blob(parts).arrayBuffer()));
  });
}

async function get(peer, label, target) {
  const bytes = await exchange(peer, label,
    `GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  let head = 0;
  while (head < bytes.length && String.fromCharCode(...bytes.subarray(head, head + 4)) !== "\r\n\r\n") head++;
  const body = bytes.subarray(head + 4);
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
  return { length: body.length, sha256: [...sum].map(n => n.toString(16).padStart(2, "0")).join("") };
}
