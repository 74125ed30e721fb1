/**
 * Pictures within a JSON body, in base64: a picture costs by its size on the screen, and not by its bytes.
 * Follows crates/proxy/src/pictures.rs.
 */

import { bytesOf } from './sse.js';

/** Of text that make a token, where nobody has counted. */
const BYTES_OF_TOKEN = 4;
/**
 * Of one picture at most, but for models that multiply the number and divide the price: Anthropic's
 * largest are 4,784 (https://docs.claude.com/en/docs/build-with-claude/vision).
 */
const MOST_TOKENS = 5_000;
/** Shorter bodies have no picture that matters. */
const SMALL = 20_000;
/** A data URL, or how PNG, JPEG, GIF and WebP begin in base64. A slash may be escaped. */
const PICTURE = /^(?:data:image\\?\/[^,]*,|(?=iVBORw0KGgo|\\?\/9j\\?\/|R0lGOD|UklGR))[A-Za-z0-9+/=_\\-]*$/;

export const tokensIn = (bytes: number): number => Math.ceil(bytes / BYTES_OF_TOKEN);

/** Tokens of a JSON body before anybody has counted them: of pictures what they cost at most, a token for four bytes of all else. */
export function tokensOf(body: string): number {
  let bytes = bytesOf(body);
  if (body.length < SMALL) return tokensIn(bytes);
  let pictures = 0;
  for (const text of body.split('"')) {
    if (!PICTURE.test(text)) continue;
    // All of it is ASCII.
    bytes -= text.length;
    pictures += Math.min(tokensIn(text.length), MOST_TOKENS);
  }
  return tokensIn(bytes) + pictures;
}
