package cache

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The tables that a Nix with ca-derivations adds, before 2.35 and in the versions since.
const (
	realisationTables = `
create table Realisations (id integer primary key autoincrement not null, drvPath text not null, outputName text not null,
	outputPath integer not null, signatures text, foreign key (outputPath) references ValidPaths(id) on delete cascade);
create table RealisationsRefs (referrer integer not null, realisationReference integer,
	foreign key (referrer) references Realisations(id) on delete cascade, foreign key (realisationReference) references Realisations(id) on delete restrict);`
	traceTableV2 = `create table BuildTraceV2 (id integer primary key autoincrement not null, drvPath text not null, outputName text not null,
	outputPath integer not null, signatures text, foreign key (outputPath) references ValidPaths(id) on delete cascade);`
	traceTableV3 = `create table BuildTraceV3 (id integer primary key autoincrement not null, drvPath text not null, outputName text not null,
	outputPath text not null, signatures text);`
)

// TestLocalRealisations: an output of a content-addressed derivation in the machine's store has the
// document that Nix asks for, in the form of each version, and for as long as it is valid.
func TestLocalRealisations(t *testing.T) {
	w, m := localWorld(t)
	dep, out := m.build("dep", map[string]string{"a": "b"}), m.build("out", map[string]string{"a": "c"})
	id := func(n int) string { return "sha256:" + strings.Repeat(fmt.Sprint(n), 64) }
	drv := pathNamed("made.drv")
	sigs := signatures(t, 2)
	old := func(n int, output string) string { return "/realisations/" + id(n) + "!" + output + ".doi" }
	trace := func(output string) string { return "/build-trace-v2/" + string(drv) + "/" + output + ".doi" }
	full := func(p *testPath) string { return p.info.Path.In("/nix/store") }

	w.must(w.get(old(1, "out")), 404, "not in this cache") // a Nix without the experiment has no such tables
	w.must(w.get(trace("out")), 404)
	m.exec(realisationTables)
	w.must(w.get(old(1, "out")), 404)
	for n, p := range map[int]*testPath{1: dep, 2: out} {
		m.exec("insert into Realisations (id, drvPath, outputName, outputPath, signatures) select ?, ?, 'out', id, ? from ValidPaths where path = ?", n, id(n), strings.Join(sigs[:2*(n-1)], " "), full(p))
	}
	m.exec("insert into RealisationsRefs values (2, 1)")
	text := func(a answer, want string) {
		t.Helper()
		if a.body != want || a.header.Get("Content-Type") != "application/json" || a.header.Get("Etag") == "" || a.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s\nwant %s\n%v", a.body, want, a.header)
		}
	}
	text(w.must(w.get(old(1, "out")), 200), `{"dependentRealisations":{},"id":"`+id(1)+`!out","outPath":"`+string(dep.info.Path)+`","signatures":[]}`)
	second := w.must(w.get(strings.Replace(old(2, "out"), "!", "%21", 1)), 200)
	text(second, `{"dependentRealisations":{"`+id(1)+`!out":"`+string(dep.info.Path)+`"},"id":"`+id(2)+`!out","outPath":"`+string(out.info.Path)+`","signatures":["`+strings.Join(sigs, `","`)+`"]}`)
	sameHead(t, second, w.head(old(2, "out")))
	w.must(w.get(old(2, "out"), "If-None-Match", second.header.Get("Etag")), 304)
	w.must(w.get(old(2, "dev")), 404)
	w.must(w.get(old(3, "out")), 404)
	// What it says is what can be uploaded.
	w.must(w.put(old(2, "out"), []byte(second.body)), 201)
	w.must(w.get(old(2, "out")), 200, string(out.info.Path))

	name, sig, _ := strings.Cut(sigs[0], ":")
	want := `{"outPath":"` + string(out.info.Path) + `","signatures":[{"keyName":"` + name + `","sig":"` + sig + `"}]}`
	m.exec(traceTableV2)
	m.exec("insert into BuildTraceV2 (drvPath, outputName, outputPath, signatures) select ?, 'v2', id, ? from ValidPaths where path = ?", string(drv), sigs[0], full(out))
	text(w.must(w.get(trace("v2")), 200), want)
	m.exec(traceTableV3)
	for output, path := range map[string]string{"full": full(out), "base": string(out.info.Path)} {
		m.exec("insert into BuildTraceV3 (drvPath, outputName, outputPath, signatures) values (?, ?, ?, ?)", string(drv), output, path, sigs[0])
		text(w.must(w.get(trace(output)), 200), want)
	}
	m.exec("insert into BuildTraceV3 (drvPath, outputName, outputPath) values (?, 'plain', ?)", drv.In("/nix/store"), full(dep))
	text(w.must(w.get(trace("plain")), 200), `{"outPath":"`+string(dep.info.Path)+`","signatures":[]}`)
	text(w.must(w.get(trace("v2")), 200), want) // the older table is there, too
	w.must(w.get(trace("none")), 404)
	w.must(w.get("/metrics"), 200, `narwharf_http_sent_bytes_total{route="realisation",source="local"}`, `narwharf_http_sent_bytes_total{route="build-trace",source="local"}`)

	m.remove(out)
	for _, path := range []string{trace("v2"), trace("full"), trace("base")} {
		w.must(w.get(path), 404)
	}
	w.must(w.get(trace("plain")), 200)
	// When the store cannot be read that is said: a 404 would be remembered.
	if err := os.Rename(m.root+"/nix/var/nix/db", m.root+"/nix/var/nix/away"); err != nil {
		t.Fatal(err)
	}
	w.must(w.get(old(1, "out")), 503)
	w.must(w.get(trace("plain")), 503)
	w.must(w.get("/debuginfo/"+strings.Repeat("ab", 20)+".debug"), 503)
	w.check()
}

// TestLocalDebuginfo: the debug information of a build is found in whatever path of the machine's
// store has it, one that comes later, too.
func TestLocalDebuginfo(t *testing.T) {
	w, m := localWorld(t)
	build := func(name, id string) *testPath {
		return m.build(name, map[string]string{"lib/debug/.build-id/" + id[:2] + "/" + id[2:] + ".debug": "symbols of " + name, "x": "y"})
	}
	one, two, three := strings.Repeat("ab", 20), strings.Repeat("cd", 20), "0123456789"
	first := build("lib-debug", one)
	m.build("no-debug", map[string]string{"lib/debug/x": "y"})
	finds := func(id string, p *testPath) {
		t.Helper()
		for _, suffix := range []string{".debug", ""} {
			a := w.must(w.get("/debuginfo/"+id+suffix), 200)
			var d struct{ Archive, Member string }
			if err := json.Unmarshal([]byte(a.body), &d); err != nil || a.header.Get("Content-Type") != "application/json" {
				t.Fatal(a.body, err, a.header)
			}
			packed, _ := p.urls()
			if d.Archive != ".."+packed || d.Member != "lib/debug/.build-id/"+id[:2]+"/"+id[2:]+".debug" {
				t.Errorf("%s is in %+v", id, d)
			}
			if a := w.must(w.get(filepath.Join("/debuginfo", d.Archive)), 200); string(unzstd(t, a.body)) != string(p.nar) {
				t.Errorf("%s: %d bytes", id, len(a.body))
			}
		}
	}
	finds(one, first)
	w.must(w.get("/debuginfo/"+two+".debug"), 404, "not in this cache")
	second := build("other", two) // a path of any name
	finds(two, second)
	finds(three, build("third-debug", three))
	m.remove(second)
	w.must(w.get("/debuginfo/"+two), 404)
	finds(two, build("again-debug", two))
	m.exec("delete from ValidPaths where path = ?", first.info.Path.In("/nix/store")) // its files are still there
	w.must(w.get("/debuginfo/"+one), 404)
	// An upload wins.
	mine := newUpload(t, "mine", "zstd")
	w.putAll(mine)
	text := `{"archive":"../nar/` + mine.file + `","member":"lib/debug/.build-id/01/23456789.debug"}`
	w.must(w.put("/debuginfo/"+three+".debug", []byte(text)), 201)
	if a := w.must(w.get("/debuginfo/"+three), 200); a.body != text {
		t.Error(a.body)
	}
	w.check()
}
