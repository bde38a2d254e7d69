// What the page asks of the server.

async function ask(path, photo, given) {
  const address = photo === undefined ? path : `${path}?id=${encodeURIComponent(photo)}`;
  const options = given === undefined ? {} : { method: "POST", body: JSON.stringify(given) };
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("weakseg review is not running any more. Start it again: nothing is lost.");
  }
  if (!answer.ok) {
    const text = await answer.text();
    let said = text;
    try { said = JSON.parse(text).error ?? text; } catch { /* plain text */ }
    throw new Error(said);
  }
  return answer;
}

const json = async (...given) => (await ask(...given)).json();
const ids = async (...given) => decode(await (await ask(...given)).blob());

/** The mask ids of a grey PNG: {width, height, ids}. */
async function decode(blob) {
  const picture = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const { width, height } = picture;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  const found = new Uint8Array(width * height);
  for (let i = 0; i < found.length; i++) found[i] = pixels[4 * i];
  return { width, height, ids: found };
}

let key = "";

export async function overview() {
  const found = await json("/overview");
  key = found.key;
  return found;
}

export const strokes = (photo) => json("/strokes", photo);
export const mask = (photo) => ids("/mask", photo);
export const draw = (photo, given) => ids("/strokes", photo, given);
export const accept = (photo, accepted) => json("/accept", photo, { accepted });
export const tag = (photo, tags) => json("/tags", photo, { tags });
export const teach = () => json("/teach", undefined, {});
export const photoAddress = (photo, small = false) =>
  `/photo?id=${encodeURIComponent(photo)}&key=${key}${small ? "&small" : ""}`;
