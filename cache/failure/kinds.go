package failure

import (
	"net/http"

	"narwharf/cache/refusal"
)

// A kindRow is what becomes of one kind of refusal over HTTP.
type kindRow struct {
	kind   refusal.Kind
	status int
	words  string // an example of the line, which says what to do
	means  string
}

// kinds is the table of refusals, the one place where a kind becomes a status.
// docs/http.md and docs/openapi.json repeat it, and a test compares.
//
// Nix repeats a request on 408, 429 and 5xx, and before 2.33 it cannot send a
// body twice: it hangs or dies. So a full disk is 413 and not 507, a stalled body
// 400 and not 408. On a PUT whatever is 500 or more becomes 501 (see Of),
// the one 5xx that every Nix takes as final, unless the client is known to send it again.
var kinds = []kindRow{
	{refusal.Away, http.StatusServiceUnavailable, "the bucket that keeps this cache's files does not answer: try again later", "an upload was held for a minute before; 403 for a Nix before 2.33, which cannot send a body twice"},
	{refusal.Busy, http.StatusServiceUnavailable, "this cache works on as much as it can for your address: try again in a minute", "listings, and what lies in the middle of a compressed NAR: they cost processor time; see [limits](config.md#limits)"},
	{refusal.Compression, http.StatusUnprocessableEntity, "Compression of … is xz, but nar/… was uploaded with zstd", "the narinfo names another compression than its NAR has"},
	{refusal.Condition, http.StatusPreconditionFailed, "the NAR has another ETag", "`If-Match`"},
	{refusal.Conflict, http.StatusConflict, "… was uploaded 2030-01-02T03:04:05Z by ci with another content: NarHash … there, … here; the first upload of a path stays", "the path (or output) is here with another content"},
	{refusal.Content, http.StatusUnprocessableEntity, "not a JSON object: …", "a realisation, build trace entry, debug information or encoded body that is not well formed, or not for its URL"},
	{refusal.Cut, http.StatusBadRequest, "the body ended before the announced length; run the command again", "the connection broke"},
	{refusal.Denied, http.StatusForbidden, "this needs the scope push; …", "see above; 401 if no good token came, 421 if the request has none that is good and is for a host that is not this server's"},
	{refusal.Encoding, http.StatusUnsupportedMediaType, "this cache cannot check lzip: copy with ?compression=zstd", "a compression or `Content-Encoding` that cannot be verified"},
	{refusal.FileHash, http.StatusUnprocessableEntity, "the body's SHA-256 is …, but it was sent as nar/…", "the NAR file is not what its name, or the narinfo, says"},
	{refusal.FileSize, http.StatusUnprocessableEntity, "FileSize of … is …, but nar/… was uploaded with …", "the same for its size"},
	{refusal.Full, http.StatusRequestEntityTooLarge, "the cache has no room for this upload: its disk is full, tell whoever runs it", "decided by the announced length, or when the disk says so"},
	{refusal.Gone, http.StatusUnprocessableEntity, "… is not in this cache any more; upload it, or build it there again", "in a promote: gone from the machine's own store"},
	{refusal.Internal, http.StatusInternalServerError, "internal error; the server's log says more", ""},
	{refusal.Length, http.StatusLengthRequired, "an upload needs a Content-Length", ""},
	{refusal.Listing, http.StatusUnprocessableEntity, "not a NAR listing: …", ""},
	{refusal.LocalBroken, http.StatusInternalServerError, "… in this cache's own store is damaged; tell whoever runs it", "see above"},
	{refusal.LocalDiffers, http.StatusUnprocessableEntity, "… in this cache's own store is not what Nix knows it as: run nix store verify --repair … there, then promote again", "in a promote"},
	{refusal.LocalStore, http.StatusServiceUnavailable, "this cache cannot read its own Nix store now, …", "see above"},
	{refusal.Method, http.StatusMethodNotAllowed, "pubkey takes GET, HEAD", ""},
	{refusal.Missing, http.StatusNotFound, "not in this cache", ""},
	{refusal.MissingNar, http.StatusUnprocessableEntity, "nar/… is not in this cache, upload it before its narinfo; run again with --refresh", ""},
	{refusal.MissingReference, http.StatusUnprocessableEntity, "… refers to …, not in this cache (your Nix may remember that it was): run again with --refresh", "clients remember for 30 days what a cache had"},
	{refusal.Name, http.StatusNotFound, "a NAR is named nar/<52 characters of nix32>.nar[.suffix]", "a URL outside the grammar"},
	{refusal.Nar, http.StatusUnprocessableEntity, "not a well-formed NAR (compression zstd): …", "damaged, cut, or something after its end"},
	{refusal.NarHash, http.StatusUnprocessableEntity, "NarHash of … is …, but nar/… was uploaded with …", "the narinfo does not fit its NAR"},
	{refusal.Narinfo, http.StatusUnprocessableEntity, "URL: … is not of the form nar/<52 characters of nix32>.nar[.suffix]", "what is wrong, with the key of its line"},
	{refusal.NarSize, http.StatusUnprocessableEntity, "NarSize of … is …, but nar/… was uploaded with …", "the narinfo does not fit its NAR"},
	{refusal.NoRoom, http.StatusServiceUnavailable, "this cache has no room to pack the NAR; download it whole, or try again later", "a range was asked for, and that needs the whole packed NAR"},
	{refusal.NotReady, http.StatusServiceUnavailable, "not ready: index: …", "`/readyz` alone"},
	{refusal.OtherPath, http.StatusUnprocessableEntity, "the narinfo is for … but was sent as ….narinfo", "a narinfo for another path than its URL"},
	{refusal.Range, http.StatusRequestedRangeNotSatisfiable, "the range is outside of the … bytes that there are", ""},
	{refusal.Signature, http.StatusUnprocessableEntity, "the narinfo has 17 signatures, this cache keeps at most 16", "malformed, or too many"},
	{refusal.Stalled, http.StatusBadRequest, "the upload stalled: no bytes came for too long; run the command again", "nothing came for `limits.body_idle`"},
	{refusal.Stopping, http.StatusServiceUnavailable, "the server stops; try again", ""},
	{refusal.StoreDir, http.StatusUnprocessableEntity, "this cache is for paths in /nix/store", ""},
	{refusal.TooLarge, http.StatusRequestEntityTooLarge, "the NAR file is 70 GiB, larger than the 64 GiB that this cache takes", "`cache.max_nar_size`; 1 MiB for a narinfo or JSON file, 64 MiB for a listing, 512 MiB for a log"},
	{refusal.Unsigned, http.StatusForbidden, "… needs a signature by ci-1: sign it with nix store sign, or copy with ?secret-key=FILE", "`signing.require_upload_sig`"},
	{refusal.Upstream, http.StatusBadGateway, "… is at an upstream of this cache, which does not send its NAR: try again later", "Nix tries again, then elsewhere"},
	{refusal.Waiting, http.StatusRequestEntityTooLarge, "this cache receives as many uploads as it may at once (limits.uploads): try again later", "an upload waited a minute for its turn, or for memory to unpack it"},
}

// statusOf is the status of each kind.
var statusOf = func() map[refusal.Kind]int {
	m := make(map[refusal.Kind]int, len(kinds))
	for _, row := range kinds {
		m[row.kind] = row.status
	}
	return m
}()
