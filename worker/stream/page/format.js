/** Times, durations and sizes as text. */

/**
 * `12:05`, or `1:12:05` from one hour on.
 *
 * @param {number} totalS
 */
export function formatClock(totalS) {
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  const [hours, minutes, seconds] = [Math.floor(totalS / 3600), Math.floor(totalS / 60) % 60, totalS % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
}

/**
 * "just now", "5 min ago", "3 h ago"; the date from one day on.
 *
 * @param {string} time  ISO 8601
 */
export function formatAge(time, now = Date.now()) {
  const seconds = (now - Date.parse(time)) / 1000;
  if (Number.isNaN(seconds)) return "";
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(time).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

/**
 * Date and time in the browser's locale.
 *
 * @param {string|null|undefined} time  ISO 8601
 */
export function formatTime(time) {
  return !time || Number.isNaN(Date.parse(time)) ? "–" : new Date(time).toLocaleString();
}

/**
 * Whole seconds from `started_at` to `finished_at`, or to now; null before the start.
 *
 * @param {{started_at?: string|null, finished_at?: string|null}} times
 */
export function elapsedS({ started_at: start, finished_at: end }) {
  const from = Date.parse(start ?? "");
  if (Number.isNaN(from)) return null;
  return Math.max(0, Math.floor(((end ? Date.parse(end) : Date.now()) - from) / 1000));
}

/**
 * "0.4 s" below one minute, then as {@link formatClock}.
 *
 * @param {{started_at?: string|null, finished_at?: string|null}} times
 */
export function formatDuration(times) {
  const seconds = (Date.parse(times.finished_at ?? "") - Date.parse(times.started_at ?? "")) / 1000;
  if (Number.isNaN(seconds)) return "–";
  return seconds < 60 ? `${Math.max(0.1, seconds).toFixed(1)} s` : formatClock(Math.floor(seconds));
}

/**
 * "12 B", "3.4 kB", "1.2 MB".
 *
 * @param {number} bytes
 */
export function formatSize(bytes) {
  if (!Number.isFinite(bytes)) return "";
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1_000_000) return `${(bytes / 1000).toFixed(1)} kB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}
