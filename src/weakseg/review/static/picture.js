// Masks and strokes as they are drawn over the photo.

const FILL = 120, EDGE = 235, UNCERTAIN = 255;

/** Draw a mask's ids in their colours, outlined. */
export function paintMask(canvas, { width, height, ids }, colours) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const out = new Uint32Array(picture.data.buffer);
  const packed = (alpha) => new Uint32Array(new Uint8Array(colours.flatMap(([r, g, b], id) =>
    id === UNCERTAIN ? [200, 200, 200, alpha] : [r, g, b, alpha])).buffer);
  const fills = packed(FILL), stripes = packed(FILL / 2), edges = packed(EDGE);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const id = ids[i];
      const edge = (x + 1 < width && ids[i + 1] !== id) || (y + 1 < height && ids[i + width] !== id);
      if (id === 0 && !edge) continue;
      const shown = id || (x + 1 < width && ids[i + 1]) || ids[i + width];
      const striped = id === UNCERTAIN && (x + y) % 8 > 3;
      out[i] = (edge ? edges : striped ? stripes : fills)[shown];
    }
  }
  context.putImageData(picture, 0, 0);
}

/** Draw strokes as lines of their colours; of background dark. */
export function paintStrokes(canvas, width, height, strokes, colourOf) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  context.lineCap = context.lineJoin = "round";
  for (const { name, points, radius } of strokes) {
    const path = new Path2D();
    path.moveTo(...points[0]);
    for (const point of points.length > 1 ? points.slice(1) : points) path.lineTo(...point);
    context.globalAlpha = 0.9;
    context.lineWidth = 2 * radius;
    context.strokeStyle = "#fff";
    context.stroke(path);
    context.lineWidth = Math.max(1, 2 * radius - 2);
    context.strokeStyle = colourOf(name);
    context.stroke(path);
  }
}
