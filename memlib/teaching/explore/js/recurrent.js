/**
 * What every recurrent machine has: a controller (memlib/recurrent/cell.py).
 *
 * @import { Vector } from "./tensor.js"
 */
import { linear, sigmoid } from "./tensor.js";

/**
 * One step of the LSTM, with input, forget, cell and output gates in torch's order.
 *
 * @param {Vector} seen (I + R M), the input and what was read last
 * @param {Vector} hidden (D)
 * @param {Vector} cell (D)
 * @param {Record<string, any>} weights as `unpack` gives them, under memlib's names
 * @returns {[hidden: Float64Array, cell: Float64Array]}
 */
export function lstm(seen, hidden, cell, weights) {
  /** @type {(end: "ih" | "hh", x: Vector) => Float64Array} */
  const layer = (end, x) =>
    linear(x, weights[`cell.controller.weight_${end}`], weights[`cell.controller.bias_${end}`]);
  const [input, recurrent] = [layer("ih", seen), layer("hh", hidden)];
  const size = hidden.length;
  /** @type {(gate: number, d: number) => number} */
  const raw = (gate, d) => input[gate * size + d] + recurrent[gate * size + d];
  const next = Float64Array.from(
    cell,
    (c, d) => sigmoid(raw(1, d)) * c + sigmoid(raw(0, d)) * Math.tanh(raw(2, d)),
  );
  return [next.map((c, d) => sigmoid(raw(3, d)) * Math.tanh(c)), next];
}

/**
 * @param {Vector[]} vectors
 * @returns {Float64Array} one after the other
 */
export function joined(vectors) {
  return Float64Array.from(vectors.flatMap((vector) => Array.from(vector)));
}
