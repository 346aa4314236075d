/** Loads noVNC. */

const RETRY_PAUSES_MS = [500, 2000];

/**
 * noVNC's RFB class; null if noVNC is not installed on the server.
 *
 * Retries a request that was aborted: Chromium does so when the machine's network changes.
 *
 * @returns {Promise<typeof NoVnc.RFB|null>}
 */
export async function loadNoVnc() {
  const url = new URL("../novnc/core/rfb.js", import.meta.url).href;
  for (const pauseMs of [...RETRY_PAUSES_MS, null]) {
    try {
      return (await import(url)).default;
    } catch {
      const answer = await fetch(url).catch(() => null);
      if (pauseMs === null || answer?.status === 404) return null;
    }
    await new Promise((resolve) => { setTimeout(resolve, pauseMs); });
  }
  return null;
}
