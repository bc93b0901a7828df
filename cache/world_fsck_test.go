package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/upload"
	"narwharf/cache/upload/fsck"
	"narwharf/narinfo"
)

// Each kind of damage is found, told, and repaired so that the next upload of
// what was lost brings it back.
func TestFsck(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 0x10; return b }
	type scene struct {
		*world
		lib, app, alt *testPath // app refers to lib; alt is app in another encoding
	}
	for name, c := range map[string]struct {
		damage func(s scene)
		finds  []string // of the report, each a damage
		repair []string // of the report with Repair; nil: as finds
		stays  int      // findings that only an upload repairs
		gone   bool     // app is no longer served after repair
	}{
		"bit flip in a NAR": {
			damage: func(s scene) { s.world.damage(s.lib, flip) },
			finds:  []string{"LIBNAR: "},
			repair: []string{"LIBNAR: ", "LIB.narinfo: LIBNAR is missing"},
			stays:  1,
		},
		"truncated NAR": {
			damage: func(s scene) { s.world.damage(s.app, func(b []byte) []byte { return b[:len(b)-9] }) },
			finds:  []string{"APPNAR: ", "APP.narinfo: APPNAR has"},
			repair: []string{"APPNAR: ", "APP.narinfo: APPNAR is missing"},
			gone:   true,
		},
		"deleted NAR": {
			damage: func(s scene) { s.remove(s.app.info.URL) },
			finds:  []string{"APP.narinfo: APPNAR is missing"},
			gone:   true,
		},
		"deleted NAR with another encoding": {
			damage: func(s scene) { s.putAll(s.alt); s.remove(s.app.info.URL) },
			finds:  []string{"APP.narinfo: APPNAR is missing"},
		},
		"rotten NAR with another encoding": {
			damage: func(s scene) { s.putAll(s.alt); s.world.damage(s.app, flip) },
			finds:  []string{"APPNAR: "},
			repair: []string{"APPNAR: ", "APP.narinfo: APPNAR is missing"},
		},
		"rotten other encoding": {
			damage: func(s scene) { s.putAll(s.alt); s.world.damage(s.alt, flip) },
			finds:  []string{"ALTNAR: "},
		},
		"another NAR under a good name": {
			damage: func(s scene) { s.write(s.app.info.URL, s.lib.body) },
			finds:  []string{"APPNAR: "},
			repair: []string{"APPNAR: ", "APP.narinfo: APPNAR is missing"},
			gone:   true,
		},
		"deleted narinfo": {
			damage: func(s scene) { s.remove(s.app.infoURL()) },
			finds:  []string{"APP.narinfo: the index has it and the file is gone"},
			gone:   true,
		},
		"garbage narinfo": {
			damage: func(s scene) { s.write(s.lib.infoURL(), []byte("rot\n")) },
			finds:  []string{"LIB.narinfo: narinfo line 1"},
		},
		"garbage narinfo that the index does not know": {
			damage: func(s scene) { s.write("/"+someHash+".narinfo", []byte("rot\n")) },
			finds:  []string{someHash + ".narinfo: narinfo line 1"},
		},
		"narinfo of another path": {
			damage: func(s scene) { s.write("/"+someHash+".narinfo", s.lib.text()) },
			finds:  []string{someHash + ".narinfo: is for"},
		},
		"narinfo that points elsewhere": {
			damage: func(s scene) {
				s.write(s.app.infoURL(), s.app.edited(func(i *narinfo.Info) { i.URL = "../secret" }))
			},
			finds: []string{"APP.narinfo: has the URL"},
		},
		"narinfo that the index does not know": {
			damage: func(s scene) {
				if err := index.Delete(s.index, s.app.info.Path.Hash()); err != nil {
					t.Fatal(err)
				}
			},
			finds: []string{"APP.narinfo: is not in the index"},
		},
		"narinfo that the index knows otherwise": {
			damage: func(s scene) {
				s.write(s.app.infoURL(), s.app.edited(func(i *narinfo.Info) { i.Sigs = signatures(t, 1) }))
			},
			finds: []string{"APP.narinfo: differs from the index"},
		},
		"narinfo that lies about its NAR": {
			damage: func(s scene) {
				lie := s.app.info.Clone()
				lie.NarSize++
				if err := index.Put(s.index, &index.Record{Info: lie}); err != nil {
					t.Fatal(err)
				}
				s.write(s.app.infoURL(), lie.Append(nil))
			},
			finds: []string{"APP.narinfo: NarSize of"},
			gone:  true,
		},
		"another encoding that is none": {
			damage: func(s scene) {
				r, err := s.index.Get(s.app.info.Path.Hash())
				if err != nil {
					t.Fatal(err)
				}
				r.Alternates = []string{s.lib.info.URL}
				if err := index.Put(s.index, r); err != nil {
					t.Fatal(err)
				}
			},
			finds: []string{"APP.narinfo: the index has LIBNAR as another file"},
		},
		"lost reference": {
			damage: func(s scene) {
				if err := index.Delete(s.index, s.lib.info.Path.Hash()); err != nil {
					t.Fatal(err)
				}
				s.u.Changed(s.lib.info.Path.Hash())
				s.remove(s.lib.infoURL())
			},
			finds: []string{"APP.narinfo: APPPATH refers to LIBPATH, which is missing: upload that again with nix copy --refresh"},
			stays: 1,
		},
		"old NAR without narinfo": {
			damage: func(s scene) {
				s.must(s.put(s.alt.narURL(), s.alt.body), 201)
				s.age(s.alt)
			},
			finds: []string{"ALTNAR: no narinfo names it"},
		},
		"a file that is no NAR": {
			damage: func(s scene) { s.write("nar/README", []byte("hello")) },
			finds:  []string{"nar/README: is not named like a NAR"},
		},
		"listing of no path": {
			damage: func(s scene) { s.write(someHash+".ls", []byte("{}")) },
			finds:  []string{someHash + ".ls: is a listing of no path"},
		},
		"garbage listing": {
			damage: func(s scene) { s.write(s.app.info.Path.Hash()+".ls", []byte("rot")) },
			finds:  []string{"APP.ls: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := scene{world: w, lib: newUpload(t, "lib", "zstd")}
			s.app = newUpload(t, "app", "zstd", s.lib)
			s.alt = s.app.repacked(t, "gzip")
			w.putAll(s.lib, s.app)
			w.mustServe(s.lib, s.app)
			w.check()
			c.damage(s)
			short := strings.NewReplacer(s.lib.info.URL, "LIBNAR", s.app.info.URL, "APPNAR", s.alt.info.URL, "ALTNAR",
				string(s.lib.info.Path), "LIBPATH", string(s.app.info.Path), "APPPATH", s.lib.info.Path.Hash(), "LIB", s.app.info.Path.Hash(), "APP")
			expect := func(repair bool, want []string, still int) {
				t.Helper()
				lines, r := w.fsck(repair)
				var damaged, repaired []string
				for _, l := range lines[:len(lines)-1] {
					l = short.Replace(l)
					switch {
					case strings.HasPrefix(l, "damaged: "):
						damaged = append(damaged, l)
					case strings.HasPrefix(l, "repaired: "):
						repaired = append(repaired, l)
					default:
						t.Errorf("a line that is neither: %s", l)
					}
				}
				if int(r.Damage) != len(damaged) || int(r.Repaired) != len(repaired) {
					t.Errorf("counted %+v over\n%s", r, strings.Join(lines, "\n"))
				}
				got := damaged
				if repair {
					got = repaired
					if len(damaged) != still {
						t.Errorf("damage stays: %q", damaged)
					}
					if still > 0 { // findings that have no repair of their own
						got = append(got, damaged...)
						want = append(slices.Clone(want), "APP.narinfo: APPPATH refers to LIBPATH, which is missing")
						slices.Sort(want)
						want = slices.Compact(want)
					}
				}
				for _, w := range want {
					if !slices.ContainsFunc(got, func(l string) bool {
						return strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(l, "damaged: "), "repaired: "), w)
					}) {
						t.Errorf("no finding %q in\n%s", w, strings.Join(got, "\n"))
					}
				}
				if len(got) < len(want) || !repair && len(got) > len(want) {
					t.Errorf("%d findings, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
				}
			}
			expect(false, c.finds, 0)
			expect(false, c.finds, 0) // looking changes nothing
			if c.repair == nil {
				c.repair = c.finds
				if c.stays > 0 {
					c.repair = nil
				}
			}
			expect(true, c.repair, c.stays)
			w.consistent()
			if c.stays == 0 {
				w.check()
			}
			if c.gone {
				w.must(w.get(s.app.infoURL()), 404)
			} else if c.stays == 0 {
				w.mustServe(s.app, s.lib)
			}
			// What is missing is uploaded again by who has it.
			for _, p := range []*testPath{s.lib, s.app} {
				if w.head(p.infoURL()).status == 404 {
					w.putAll(p)
				}
			}
			w.mustServe(s.lib, s.app)
			w.check()
			w.restart()
			w.check()
		})
	}
}

// Files that are moved away keep their name and bytes, for a person to see.
func TestFsckQuarantine(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "none")
	w.putAll(p)
	var bad []byte
	w.damage(p, func(b []byte) []byte { b[100] ^= 1; bad = b; return b })
	if _, r := w.fsck(true); r.Repaired != 2 || r.Damage != 0 {
		t.Errorf("%+v", r)
	}
	for name, want := range map[string]string{p.info.URL: string(bad), p.infoURL(): string(p.text())} {
		got, err := os.ReadFile(filepath.Join(w.dir, "cache", "quarantine", name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %v", name, err)
		}
		w.must(w.get("/"+"quarantine"+"/"+name), 404)
	}
}

// What cannot be read at the moment is no reason to move it, nor is a limit
// that was larger when it came.
func TestFsckLeavesGoodFilesAlone(t *testing.T) {
	w := newWorld(t)
	p := random(t, "p", 2<<20)
	w.putAll(p)
	w.u.MaxNarSize = 1 << 20
	if lines, r := w.fsck(true); r.Damage+r.Repaired != 0 {
		t.Errorf("below a lower limit: %q", lines)
	}
	u, err := upload.New(&unreadable{w.files}, w.index, w.setup.uploads, w.setup.Log)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	r, err := fsck.Run(t.Context(), u, fsck.Options{Repair: true, Report: func(l string) { lines = append(lines, l) }})
	if err != nil || r.Damage != 1 || r.Repaired != 0 || !strings.Contains(lines[0], "too many open files") {
		t.Errorf("%+v, %v, %q", r, err, lines)
	}
	w.mustServe(p)
	w.check()
}

type unreadable struct{ blob.Store }

func (u *unreadable) Open(name string) (*blob.File, error) {
	if strings.HasPrefix(name, "nar/") {
		return nil, errors.New("too many open files")
	}
	return u.Store.Open(name)
}

func TestFsckRepairThatFails(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "none")
	w.putAll(p)
	w.damage(p, func(b []byte) []byte { b[100] ^= 1; return b })
	w.breakAt(func(op, name string) error {
		if op == "rename" {
			return os.ErrPermission
		}
		return nil
	})
	lines, r := w.fsck(true)
	if r.Damage != 1 || r.Repaired != 0 || !strings.Contains(lines[0], "repair failed") {
		t.Errorf("%+v, %q", r, lines)
	}
	w.breakAt(nil)
	w.consistent()
	if _, r := w.fsck(true); r.Damage != 0 {
		t.Errorf("%+v", r)
	}
	w.check()
}

// Repair that is cut off anywhere, on the disk or in the index, has lost nothing
// that it would not have taken out, and a second one ends the work.
func TestFsckFaultAtEveryWriteOfRepair(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 0x10; return b }
	for name, c := range map[string]struct {
		damage func(w *world, p, alt *testPath)
		stays  bool // the path survives the repair
	}{
		"rotten NAR":                        {func(w *world, p, _ *testPath) { w.damage(p, flip) }, false},
		"rotten NAR with another encoding":  {func(w *world, p, alt *testPath) { w.putAll(alt); w.damage(p, flip) }, true},
		"garbage narinfo":                   {func(w *world, p, _ *testPath) { w.write(p.infoURL(), []byte("rot\n")) }, true},
		"deleted narinfo":                   {func(w *world, p, _ *testPath) { w.remove(p.infoURL()) }, false},
		"narinfo that differs":              {func(w *world, p, _ *testPath) { w.write(p.infoURL(), p.edited(sign(signatures(t, 1)))) }, true},
		"narinfo that differs and is wrong": {func(w *world, p, _ *testPath) { w.write(p.infoURL(), p.edited(func(i *narinfo.Info) { i.NarSize++ })) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				left, hit := n, false
				strike := func() error {
					if left--; left != -1 {
						return nil
					}
					hit = true
					return os.ErrPermission
				}
				idx := &faultyIndex{fail: func([]string) (error, bool) { return nil, false }}
				w := newWorld(t, func(s *setup) { s.wrap = func(i index.Index) index.Index { idx.Index = i; return idx } })
				p := newUpload(t, "p", "zstd")
				w.putAll(p)
				c.damage(w, p, p.repacked(t, "gzip"))
				w.breakAt(func(string, string) error { return strike() })
				idx.fail = func([]string) (error, bool) { return strike(), false }
				w.fsck(true)
				w.breakAt(nil)
				idx.fail = func([]string) (error, bool) { return nil, false }
				lines, r := w.fsck(true)
				if r.Damage > 0 {
					t.Errorf("a fault at %d: the second repair leaves %q", n, lines)
				}
				w.check()
				if c.stays {
					w.mustServe(p)
				}
				w.putAll(p)
				w.mustServe(p)
				w.restart()
				w.check()
				w.stop()
				if !hit {
					return
				}
			}
		})
	}
}

func sign(sigs []string) func(*narinfo.Info) {
	return func(i *narinfo.Info) { i.Sigs = sigs }
}

func TestFsckIncomplete(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.uploads.AllowIncomplete = true })
	p := newUpload(t, "p", "none")
	p.info.References = []narinfo.Path{pathNamed("never-uploaded")}
	w.putAll(p)
	w.check()
}

// A plain cache that was copied here may leave out what we always write.
func TestFsckWithoutFileHash(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "none")
	w.write(p.infoURL(), p.edited(func(i *narinfo.Info) { i.FileHash, i.FileSize = narinfo.Hash{}, 0 }))
	w.must(w.put(p.narURL(), p.body), 201)
	w.restart()
	w.check()
	info, _, _, err := w.channels.Info(p.info.Path.Hash())
	if err != nil || !w.hasBytes(info) {
		t.Error(err)
	}
}

func TestFsckCancelled(t *testing.T) {
	w := newWorld(t)
	w.putAll(newUpload(t, "p", "none"), newUpload(t, "q", "none"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fsck.Run(ctx, w.u, fsck.Options{Report: func(string) {}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestFsckPending(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "p", "none")
	w.must(w.put(p.narURL(), p.body), 201)
	if lines, r := w.fsck(true); r.Pending != 1 || r.Damage+r.Repaired != 0 || !strings.Contains(lines[0], "clean; 1 NARs wait for their narinfo") {
		t.Errorf("%+v, %q", r, lines)
	}
	w.must(w.get(p.narURL()), 200)
}

// What a channel needs and is lost is damage, also where the repair takes it out of the
// way; from another encoding or the local store it comes back, and that is a repair.
func TestFsckOfWhatChannelsNeed(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 0x10; return b }
	for name, damage := range map[string]func(w *world, p *testPath){
		"rotten":  func(w *world, p *testPath) { w.damage(p, flip) },
		"cut":     func(w *world, p *testPath) { w.damage(p, func(b []byte) []byte { return b[:9] }) },
		"deleted": func(w *world, p *testPath) { w.remove(p.info.URL) },
	} {
		t.Run(name, func(t *testing.T) {
			w, m := localWorld(t)
			needed, other, alt := newUpload(t, "needed", "zstd"), newUpload(t, "other", "zstd"), newUpload(t, "alt", "zstd")
			local := m.build("local", map[string]string{"file": "I am local" + strings.Repeat(".", 2000)})
			both := newUpload(t, "local", "gzip")
			w.putAll(needed, other, alt, alt.repacked(t, "gzip"), both)
			adopted := m.build("adopted", map[string]string{"file": "adopted"})
			if _, err := w.adopter.Adopt(t.Context(), pathsOf(adopted), "x"); err != nil {
				t.Fatal(err)
			}
			r, err := w.index.Get(adopted.info.Path.Hash())
			if err != nil {
				t.Fatal(err)
			}
			adopted.info.URL = r.Info.URL
			w.must(w.get(local.infoURL()), 200)
			if both.info.NarHash != local.info.NarHash {
				t.Fatal("the test's two paths differ")
			}
			all := []*testPath{needed, other, alt, both, adopted}
			for _, p := range all {
				damage(w, p)
			}
			channels := func(p narinfo.Path) []string {
				if p == other.info.Path {
					return nil
				}
				return []string{"db", "web"}
			}
			run := func(repair bool) (string, fsck.Result) {
				t.Helper()
				var lines []string
				r, err := fsck.Run(t.Context(), w.u, fsck.Options{Repair: repair, Needed: channels, Fetch: w.adopter.Fetch, Report: func(l string) { lines = append(lines, l) }})
				if err != nil {
					t.Fatal(err)
				}
				return strings.Join(lines, "\n"), r
			}
			lost := func(r fsck.Result, want ...*testPath) {
				t.Helper()
				for _, c := range []string{"web", "db"} {
					slices.Sort(r.Lost[c])
					paths := pathsOf(want...)
					if slices.Sort(paths); !slices.Equal(r.Lost[c], paths) {
						t.Errorf("lost for %s: %q, want %q", c, r.Lost[c], paths)
					}
				}
			}
			lines, r1 := run(false)
			if r1.Damage < 5 || !strings.Contains(lines, string(needed.info.Path)) || !strings.Contains(lines, "needed by db, web") {
				t.Errorf("%+v\n%s", r1, lines)
			}
			lost(r1, needed, alt, both, adopted)
			lines, r2 := run(true)
			if r2.Damage != 1 || strings.Contains(lines, "clean") || !strings.Contains(lines, "needed by db, web; repair failed: the path is taken out, upload it again with nix copy --refresh") {
				t.Errorf("%+v\n%s", r2, lines)
			}
			lost(r2, needed)
			for _, p := range all {
				want := 200
				if p == needed || p == other {
					want = 404
				}
				w.must(w.get(p.infoURL()), want)
			}
			w.mustServe(alt, both, adopted)
			w.putAll(needed, other)
			if lines, r := run(true); r.Damage+r.Repaired > 0 {
				t.Errorf("%+v\n%s", r, lines)
			}
			w.check()
		})
	}
	// A narinfo file that is gone is written again, out of the index, where a channel
	// needs it.
	w := newWorld(t)
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	w.remove(p.infoURL())
	r, err := fsck.Run(t.Context(), w.u, fsck.Options{Repair: true, Needed: func(narinfo.Path) []string { return []string{"web"} }, Report: func(string) {}})
	if err != nil || r.Damage > 0 || r.Repaired != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	w.mustServe(p)
	w.check()
}
