/**
 * Cells of a plane: to which of some centers each of its places is nearest.
 *
 * @import { Matrix, Vector } from "../../tensor.js"
 */

/**
 * @param {Matrix} centers (C, 2)
 * @param {number} index of one of them
 * @param {number[][]} box corners of the part of the plane that is drawn, in their order around it
 * @returns {number[][]} corners of its cell; none where it lies outside the box
 */
export function cell(centers, index, box) {
  const mine = centers[index];
  let corners = box;
  for (let c = 0; c < centers.length; c++) {
    if (c !== index) corners = nearer(corners, mine, centers[c]);
  }
  return corners;
}

/**
 * @param {number[][]} corners of a convex shape
 * @param {Vector} mine
 * @param {Vector} other
 * @returns {number[][]} the part of the shape that is nearer to mine than to the other
 */
function nearer(corners, mine, other) {
  const [dx, dy] = [other[0] - mine[0], other[1] - mine[1]];
  const middle = (dx * (other[0] + mine[0]) + dy * (other[1] + mine[1])) / 2;
  const side = (/** @type {number[]} */ [x, y]) => dx * x + dy * y - middle; // above 0: the other's
  return corners.flatMap((from, n) => {
    const to = corners[(n + 1) % corners.length];
    const [a, b] = [side(from), side(to)];
    const kept = a <= 0 ? [from] : [];
    if (a * b >= 0) return kept;
    const share = a / (a - b); // where the edge crosses the border
    return [...kept, [from[0] + share * (to[0] - from[0]), from[1] + share * (to[1] - from[1])]];
  });
}
