/** The account that is signed in on this page. */

/**
 * @typedef {object} Account
 * @property {import("./api-client.js").ApiClient|null} api  null while signed out
 * @property {(error: unknown) => boolean} handleError
 *   signs out after a 401; returns whether it did, so that retrying has no use
 */

/**
 * The API of the account that is signed in.
 *
 * @param {Account} account
 */
export function apiOf(account) {
  if (!account.api) throw new Error("signed out");
  return account.api;
}
