// Package s3test is a bucket in memory, with faults: as much of S3 as package s3 uses, for
// tests. It looks at no signature.
package s3test

import (
	"crypto/md5" //nolint:gosec // ETags are made of it
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Bucket is an http.Handler for one bucket, whatever its name.
type Bucket struct {
	mu      sync.Mutex
	fault   func(w http.ResponseWriter, req *http.Request) bool
	objects map[string]*object
	uploads map[string]*upload
	serial  int
	counts  map[string]int
}

type object struct {
	data     []byte
	etag     string
	modified time.Time
	header   http.Header
}

type upload struct {
	key    string
	parts  map[int][]byte
	header http.Header
	began  time.Time
}

// Start serves a bucket until the test ends, and returns its endpoint.
func Start(t testing.TB) (*Bucket, string) {
	b := &Bucket{objects: map[string]*object{}, uploads: map[string]*upload{}, counts: map[string]int{}}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	return b, server.URL
}

// Fault has f see each request first, and answer it instead if it returns true.
func (b *Bucket) Fault(f func(w http.ResponseWriter, req *http.Request) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = f
}

// Keys are the objects, sorted.
func (b *Bucket) Keys() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.objects))
}

// Uploads is how many multipart uploads are not completed.
func (b *Bucket) Uploads() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.uploads)
}

// Count is how many requests of a method there were.
func (b *Bucket) Count(method string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts[method]
}

// Damage changes the last byte of an object, and not its metadata.
func (b *Bucket) Damage(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := *b.objects[key]
	o.data = slices.Clone(o.data)
	o.data[len(o.data)-1] ^= 1
	b.objects[key] = &o
}

// Age has multipart uploads be older.
func (b *Bucket) Age(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.uploads {
		u.began = u.began.Add(-d)
	}
}

// ServeHTTP implements http.Handler.
func (b *Bucket) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	b.mu.Lock()
	b.counts[req.Method]++
	fault := b.fault
	b.mu.Unlock()
	if fault == nil || !fault(w, req) {
		b.Serve(w, req)
	}
}

// Serve answers without a fault.
func (b *Bucket) Serve(w http.ResponseWriter, req *http.Request) {
	_, key, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	if want := req.Header.Get("X-Amz-Content-Sha256"); len(want) == 64 && want != hexOf(body) {
		Refuse(w, http.StatusBadRequest, "XAmzContentSHA256Mismatch")
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	q := req.URL.Query()
	switch {
	case key == "" && req.Method == http.MethodGet && q.Has("uploads"):
		b.listUploads(w)
	case key == "" && req.Method == http.MethodGet:
		b.list(w, q.Get("prefix"), q.Get("delimiter"), max(q.Get("start-after"), q.Get("continuation-token")))
	case key == "" && req.Method == http.MethodPost && q.Has("delete"):
		b.deleteMany(w, body)
	case req.Method == http.MethodPost && q.Has("uploads"):
		b.serial++
		id := strconv.Itoa(b.serial)
		b.uploads[id] = &upload{key, map[int][]byte{}, req.Header, time.Now()}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
	case q.Has("uploadId"):
		b.multipart(w, req, key, q.Get("uploadId"), body)
	case req.Method == http.MethodPut:
		b.put(w, key, body, req.Header, etag(body))
	case req.Method == http.MethodDelete:
		delete(b.objects, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		b.get(w, req, key)
	}
}

// Refuse answers as S3 does.
func Refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>a test</Message></Error>", code)
}

func hexOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func etag(data []byte) string {
	sum := md5.Sum(data) //nolint:gosec // as S3 does
	return hex.EncodeToString(sum[:])
}

func (b *Bucket) put(w http.ResponseWriter, key string, data []byte, header http.Header, tag string) {
	b.objects[key] = &object{data, tag, time.Now(), header}
	w.Header().Set("ETag", `"`+tag+`"`)
}

func (b *Bucket) get(w http.ResponseWriter, req *http.Request, key string) {
	o := b.objects[key]
	if o == nil {
		Refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	w.Header().Set("ETag", `"`+o.etag+`"`)
	w.Header().Set("Content-Type", o.header.Get("Content-Type"))
	for k, v := range o.header {
		if strings.HasPrefix(k, "X-Amz-Meta-") {
			w.Header()[k] = v
		}
	}
	http.ServeContent(w, req, "", o.modified, strings.NewReader(string(o.data)))
}

func (b *Bucket) multipart(w http.ResponseWriter, req *http.Request, key, id string, body []byte) {
	u := b.uploads[id]
	switch {
	case u == nil || u.key != key:
		Refuse(w, http.StatusNotFound, "NoSuchUpload")
	case req.Method == http.MethodPut:
		n, _ := strconv.Atoi(req.URL.Query().Get("partNumber"))
		u.parts[n] = body
		w.Header().Set("ETag", `"`+etag(body)+`"`)
	case req.Method == http.MethodDelete:
		delete(b.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	default:
		b.complete(w, u, id, body)
	}
}

func (b *Bucket) complete(w http.ResponseWriter, u *upload, id string, body []byte) {
	var list struct {
		Part []struct {
			PartNumber int
			ETag       string
		}
	}
	if err := xml.Unmarshal(body, &list); err != nil {
		Refuse(w, http.StatusBadRequest, "MalformedXML")
		return
	}
	var all []byte
	for _, p := range list.Part {
		if etag(u.parts[p.PartNumber]) != strings.Trim(p.ETag, `"`) {
			Refuse(w, http.StatusBadRequest, "InvalidPart")
			return
		}
		all = append(all, u.parts[p.PartNumber]...)
	}
	delete(b.uploads, id)
	tag := etag(all) + "-" + strconv.Itoa(len(list.Part))
	b.put(w, u.key, all, u.header, tag)
	fmt.Fprintf(w, "<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>%s</Key><ETag>%s</ETag></CompleteMultipartUploadResult>", u.key, tag)
}

type listed struct {
	Key, LastModified, ETag string
	Size                    int64
}

type prefix struct{ Prefix string }

type listing struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	Contents              []listed
	CommonPrefixes        []prefix
}

func (b *Bucket) list(w http.ResponseWriter, from, delimiter, after string) {
	var out listing
	n, last := 0, ""
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		rest, ok := strings.CutPrefix(key, from)
		if !ok || key <= after {
			continue
		}
		if folder, _, ok := strings.Cut(rest, "/"); ok && delimiter == "/" {
			folder = from + folder + "/"
			if folder == last || strings.HasPrefix(after, folder) {
				continue
			}
			last = folder
			out.CommonPrefixes = append(out.CommonPrefixes, prefix{folder})
		} else {
			o := b.objects[key]
			out.Contents = append(out.Contents, listed{key, o.modified.UTC().Format("2006-01-02T15:04:05.000Z"), o.etag, int64(len(o.data))})
		}
		if n++; n == 1000 {
			out.IsTruncated, out.NextContinuationToken = true, key
			break
		}
	}
	writeXML(w, out)
}

func (b *Bucket) listUploads(w http.ResponseWriter) {
	type entry struct {
		XMLName        xml.Name `xml:"Upload"`
		Key, Initiated string
		ID             string `xml:"UploadId"`
	}
	var all struct {
		XMLName xml.Name `xml:"ListMultipartUploadsResult"`
		Upload  []entry
	}
	for id, u := range b.uploads {
		all.Upload = append(all.Upload, entry{Key: u.key, ID: id, Initiated: u.began.UTC().Format(time.RFC3339)})
	}
	writeXML(w, all)
}

func (b *Bucket) deleteMany(w http.ResponseWriter, body []byte) {
	var list struct{ Object []struct{ Key string } }
	if err := xml.Unmarshal(body, &list); err != nil {
		Refuse(w, http.StatusBadRequest, "MalformedXML")
		return
	}
	for _, o := range list.Object {
		delete(b.objects, o.Key)
	}
	_, _ = io.WriteString(w, "<DeleteResult></DeleteResult>")
}

func writeXML(w http.ResponseWriter, v any) {
	text, err := xml.Marshal(v)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/xml")
	_, _ = w.Write(text)
}
