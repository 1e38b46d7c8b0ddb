/**
 * Weights as `weights.py` packs them: half or single precision in base64, with shapes and metadata.
 *
 * @typedef {{shape: number[], half?: string, single?: string}} PackedTensor
 * @typedef {{metadata: Record<string, any>, tensors: Record<string, PackedTensor>}} Packed
 */

/** Every number of half precision by its bits, so that a weight is a look-up. */
const HALF = (() => {
  const table = new Float32Array(1 << 16);
  for (let bits = 0; bits < table.length; bits++) {
    const sign = bits >> 15 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = (bits & 1023) / 1024;
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction;
    table[bits] = exponent === 31 ? NaN : sign * size;
  }
  return table;
})();

/**
 * @param {string} text base64
 * @returns {Uint8Array}
 */
export function bytes(text) {
  const quick = /** @type {any} */ (Uint8Array).fromBase64; // where the browser has it
  if (quick) return quick(text);
  const binary = atob(text);
  const out = new Uint8Array(binary.length);
  for (let i = 0; i < out.length; i++) out[i] = binary.charCodeAt(i);
  return out;
}

/**
 * @param {Packed} packed
 * @returns {Record<string, any>} by name a vector, or rows of a matrix, or nested rows
 */
export function unpack(packed) {
  /** @type {Record<string, any>} */
  const out = {};
  for (const [name, { shape, half, single = "" }] of Object.entries(packed.tensors)) {
    out[name] = rows(half ? halves(half) : new Float32Array(bytes(single).buffer), shape);
  }
  return out;
}

/**
 * @param {string} text base64 of half precision
 * @returns {Float32Array}
 */
function halves(text) {
  const raw = bytes(text);
  const flat = new Float32Array(raw.length / 2);
  for (let i = 0; i < flat.length; i++) flat[i] = HALF[raw[2 * i] | (raw[2 * i + 1] << 8)];
  return flat;
}

/**
 * @param {{shape: number[], bytes: string, scale: {half: string}}} packed a matrix at 8 bits, each
 *   row with a scale of its own
 * @returns {Float32Array[]} its rows; the products fit their type without rounding
 */
export function unpackRows(packed) {
  const scale = halves(packed.scale.half);
  const whole = new Int8Array(bytes(packed.bytes).buffer);
  const flat = new Float32Array(whole.length);
  const columns = packed.shape[1];
  for (let n = 0, i = 0; n < scale.length; n++) {
    for (const end = i + columns; i < end; i++) flat[i] = whole[i] * scale[n];
  }
  return rows(flat, packed.shape);
}

/**
 * @template {Float32Array | Int8Array} T
 * @param {T} flat
 * @param {number[]} shape
 * @returns {any} views of the same numbers, nested by shape
 */
export function rows(flat, shape) {
  if (shape.length < 2) return flat;
  const size = flat.length / shape[0];
  return Array.from({ length: shape[0] }, (_, i) =>
    rows(flat.subarray(i * size, (i + 1) * size), shape.slice(1)),
  );
}
