package nixstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/narinfo"
)

func same(t *testing.T, got, want *PathInfo) {
	t.Helper()
	if got.Ultimate != want.Ultimate || !got.Registered.Equal(want.Registered) || !reflect.DeepEqual(got.Info, want.Info) {
		t.Errorf("got  %+v %v %v\nwant %+v %v %v", got.Info, got.Ultimate, got.Registered, want.Info, want.Ultimate, want.Registered)
	}
}

// oddities are paths that show every field and every kind of name.
func oddities(storeDir string) []*PathInfo {
	plain := pathInfo(storeDir, "hello-2.12.1")
	plain.References = nil

	self := pathInfo(storeDir, "self", plain.Path)
	self.References = append(self.References, self.Path)
	slices.Sort(self.References)

	ca := pathInfo(storeDir, "content-addressed.tar.gz")
	ca.CA, ca.Deriver, ca.Sigs, ca.References = "fixed:r:sha256:"+ca.NarHash.Base32(), "", nil, nil

	built := pathInfo(storeDir, "built-here", self.Path, plain.Path)
	built.Ultimate, built.Sigs = true, nil

	signed := pathInfo(storeDir, "signed-twice", ca.Path)
	signed.Sigs = append(signed.Sigs, "another.example-2"+signed.Sigs[0][len("cache-1"):])
	slices.Sort(signed.Sigs)

	all := []*PathInfo{plain, self, ca, built, signed}
	for _, name := range []string{"a", ".hidden", "=?+_-.0", "x.drv", "-", strings.Repeat("n", 211)} {
		i := pathInfo(storeDir, name)
		i.References = nil
		if len(name) > 200 {
			i.Deriver = ""
		}
		all = append(all, i)
	}
	return all
}

func TestInfo(t *testing.T) {
	for _, dir := range []string{"/nix/store", "/other/place?#%41/store", "/s"} {
		f := newFixture(t, dir)
		all := oddities(dir)
		f.put(all...)
		s := f.open()
		for _, want := range all {
			same(t, mustInfo(t, s, want.Path), want)
			i, err := s.InfoByHash(context.Background(), want.Path.Hash())
			if err != nil || !reflect.DeepEqual(i, want.Info) {
				t.Errorf("by hash: %+v, %v", i, err)
			}
			if got := s.RealPath(want.Path); got != dir+"/"+string(want.Path) {
				t.Errorf("real path %s", got)
			}
		}
		if s.Backend() != "database" || s.StoreDir() != dir {
			t.Errorf("backend %s, store dir %s", s.Backend(), s.StoreDir())
		}
	}
}

func TestNotValid(t *testing.T) {
	f := newFixture(t, "/nix/store")
	there := pathInfo("/nix/store", "there")
	f.put(there)
	s := f.open()
	gone := pathInfo("/nix/store", "gone").Path
	near := there.Path[:len(there.Path)-1]
	for _, p := range []narinfo.Path{gone, near, there.Path + "x", ""} {
		_, err := s.Info(context.Background(), p)
		if !errors.Is(err, ErrNotValid) || err.Error() != "/nix/store/"+string(p)+" is not in the local store" {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, err := s.InfoByHash(context.Background(), gone.Hash()); !errors.Is(err, ErrNotValid) || !strings.HasPrefix(err.Error(), "/nix/store/"+gone.Hash()+" ") {
		t.Error(err)
	}
	// Neither a shorter hash nor one with a wildcard may find a path.
	for _, h := range []string{"", there.Path.Hash()[:31], strings.Repeat("_", 32), there.Path.Hash() + "-"} {
		if _, err := s.InfoByHash(context.Background(), h); err == nil || errors.Is(err, ErrNotValid) {
			t.Errorf("%q: %v", h, err)
		}
	}
}

func TestRowsThatMakeNoSense(t *testing.T) {
	f := newFixture(t, "/nix/store")
	i := pathInfo("/nix/store", "x", pathInfo("/nix/store", "y").Path)
	f.put(pathInfo("/nix/store", "y"), i)
	s := f.open()
	const refused = "what Nix knows about "
	for _, c := range []struct{ set, want string }{
		{"hash = 'sha1:f572d396fae9206628714fb2ce00f72e94f2258f'", `its algorithm is "sha1"; only sha256 is taken here`},
		{"hash = ''", "it names no algorithm"},
		{"narSize = null", "it has no NAR size; nix-store --verify --check-contents fills it in"},
		{"narSize = -1", "it has no NAR size"},
		{"deriver = '/elsewhere/x'", `deriver: store path "/elsewhere/x" is not directly in "/nix/store"`},
	} {
		f.exec("update ValidPaths set " + c.set + " where path like '%-x'")
		_, err := s.Info(context.Background(), i.Path)
		if err == nil || !strings.Contains(err.Error(), refused+i.Path.In("/nix/store")+" makes no sense: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.set, err)
		}
		if _, err := s.Closure(context.Background(), i.Path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("closure, %s: %v", c.set, err)
		}
		f.exec("update ValidPaths set hash = ?, narSize = 5, deriver = null where path like '%-x'", fmt.Sprintf("sha256:%x", i.NarHash[:]))
	}
	f.exec("update ValidPaths set path = '/nix/store/.links' where path like '%-y'")
	if _, err := s.Info(context.Background(), i.Path); err == nil || !strings.Contains(err.Error(), `reference: store path "/nix/store/.links"`) {
		t.Error(err)
	}
	if _, err := s.Closure(context.Background(), i.Path); err == nil || !strings.Contains(err.Error(), "a row for what is no store path") {
		t.Error(err)
	}
	// A row that is missing where a reference leads must not shorten the list.
	f.exec("pragma foreign_keys = 0")
	f.exec("delete from ValidPaths where path like '%.links'")
	if _, err := s.Info(context.Background(), i.Path); err == nil || !strings.Contains(err.Error(), "refers to row 1, which is not there") {
		t.Error(err)
	}
	if _, err := s.Closure(context.Background(), i.Path); err == nil || !strings.Contains(err.Error(), "refers to row 1, which is not there") {
		t.Error(err)
	}
}

func TestBadSignaturesAreLeftOut(t *testing.T) {
	f := newFixture(t, "/nix/store")
	i := pathInfo("/nix/store", "x")
	i.References = nil
	good := i.Sigs[0]
	digits := good[len("cache-1:"):]
	f.put(i)
	s := f.open()
	f.exec("update ValidPaths set sigs = ?", strings.Join([]string{
		"no-colon", ":" + digits, "short:AAAA", "k:" + digits[:87] + "!", good, "", good,
		"k:" + digits[:85] + "B==", "two:" + digits + ":" + digits, "k\x01:" + digits}, " "))
	if got := mustInfo(t, s, i.Path).Sigs; !slices.Equal(got, []string{good}) {
		t.Errorf("%q", got)
	}
	f.exec("update ValidPaths set sigs = ''")
	if got := mustInfo(t, s, i.Path).Sigs; got != nil {
		t.Errorf("%q", got)
	}
}

func TestFingerprint(t *testing.T) {
	f := newFixture(t, "/nix/store")
	all := oddities("/nix/store")
	f.put(all...)
	s := f.open()
	for _, want := range all {
		if got, w := mustInfo(t, s, want.Path).AppendFingerprint(nil), want.AppendFingerprint(nil); string(got) != string(w) {
			t.Errorf("got %s\nwant %s", got, w)
		}
	}
}

func TestChangesAreSeenAtOnce(t *testing.T) {
	f := newFixture(t, "/nix/store")
	s := f.open()
	ctx := context.Background()
	last, err := s.Version(ctx)
	if err != nil {
		t.Fatal(err)
	}
	version := func(changed bool) {
		t.Helper()
		v, err := s.Version(ctx)
		if err != nil || (v != last) != changed {
			t.Fatalf("version %v after %v, %v", v, last, err)
		}
		last = v
	}
	version(false)
	for n := range 20 {
		i := pathInfo("/nix/store", fmt.Sprint("p-", n))
		if _, err := s.Info(ctx, i.Path); !errors.Is(err, ErrNotValid) {
			t.Fatal(err)
		}
		version(false)
		f.put(i)
		version(true)
		same(t, mustInfo(t, s, i.Path), i)
		i.NarHash[0] ^= 1 // built again with another result
		f.exec("update ValidPaths set hash = ? where path = ?", fmt.Sprintf("sha256:%x", i.NarHash[:]), i.Path.In("/nix/store"))
		same(t, mustInfo(t, s, i.Path), i)
		version(true)
		version(false)
		f.remove(i.Path)
		version(true)
		if _, err := s.Info(ctx, i.Path); !errors.Is(err, ErrNotValid) {
			t.Fatal(err)
		}
	}
}

// TestOneStateOfTheStore deletes and registers a path, with other references
// each time, and looks for an answer that mixes two of its lives.
func TestOneStateOfTheStore(t *testing.T) {
	f := newFixture(t, "/nix/store")
	base := pathInfos("/nix/store", 30, 0)
	f.put(base...)
	s := f.open()
	life := func(n int) *PathInfo {
		i := pathInfo("/nix/store", "changing")
		for _, b := range base[:n] {
			i.References = append(i.References, b.Path)
		}
		slices.Sort(i.References)
		i.NarSize = int64(1000 + n)
		return i
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				i, err := s.Info(context.Background(), life(0).Path)
				if err == nil && int64(1000+len(i.References)) != i.NarSize {
					t.Errorf("%d references and size %d", len(i.References), i.NarSize)
				} else if err != nil && !errors.Is(err, ErrNotValid) {
					t.Error(err)
				}
				all, err := s.Closure(context.Background(), life(0).Path)
				if err == nil && !slices.ContainsFunc(all, func(i *narinfo.Info) bool { return i.NarSize == int64(999+len(all)) }) {
					t.Errorf("closure of %d", len(all))
				}
				if _, err := s.Version(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range 60 {
		f.put(life(n % 30))
		f.remove(life(0).Path)
	}
	close(stop)
	wg.Wait()
}

func TestRoot(t *testing.T) {
	root := shortDir(t) + "/with space"
	f := newFixtureIn(t, "/nix/store", root+"/nix/var/nix")
	i := pathInfo("/nix/store", "x")
	i.References = nil
	f.put(i)
	t.Setenv("NIX_DAEMON_SOCKET_PATH", "/another/store's/socket")
	s, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	same(t, mustInfo(t, s, i.Path), i)
	if got := s.RealPath(i.Path); got != root+"/nix/store/"+string(i.Path) {
		t.Error(got)
	}
	if s.daemon.Socket != root+"/nix/var/nix/daemon-socket/socket" {
		t.Errorf("socket %s", s.daemon.Socket)
	}
}

func TestOptions(t *testing.T) {
	t.Setenv("NIX_DAEMON_SOCKET_PATH", "")
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{StoreDir: "nix/store"}, `the store directory "nix/store" must be an absolute path in its shortest form`},
		{Options{StoreDir: "/nix/store/"}, `the store directory "/nix/store/" must`},
		{Options{StoreDir: "/"}, `the store directory "/" must`},
		{Options{Root: "mnt"}, `the root "mnt" must`},
		{Options{Root: "/mnt/../x"}, `the root "/mnt/../x" must`},
		{Options{StateDir: "."}, `the state directory "." must`},
		{Options{Root: "/nonexistent/root"}, "the local Nix store cannot be read: " +
			"the database /nonexistent/root/nix/var/nix/db/db.sqlite is not there; " +
			"nix-daemon does not answer on /nonexistent/root/nix/var/nix/daemon-socket/socket: there is no such socket: " +
			"start nix-daemon, or give the right store and state directory"},
	} {
		s, err := Open(c.o)
		if err == nil {
			_ = s.Close()
			t.Errorf("%+v was taken", c.o)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
	if _, err := Open(Options{Root: "/nonexistent/root"}); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	t.Setenv("NIX_DAEMON_SOCKET_PATH", "/from/env")
	f := newFixtureIn(t, "/nix/store", shortDir(t))
	if s := f.open(); s.daemon.Socket != "/from/env" {
		t.Errorf("socket %s", s.daemon.Socket)
	}
}

func TestContext(t *testing.T) {
	f := newFixture(t, "/nix/store")
	infos := pathInfos("/nix/store", 100, 5)
	f.put(infos...)
	s := f.open()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err1 := s.Info(ctx, infos[0].Path)
	_, err2 := s.Closure(ctx, infos[99].Path)
	_, err3 := s.Version(ctx)
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func TestClose(t *testing.T) {
	f := newFixture(t, "/nix/store")
	infos := pathInfos("/nix/store", 300, 5)
	f.put(infos...)
	s := f.open()
	// SQLite keeps files open for as long as anybody in the process has a lock.
	if err := f.w.Close(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				_, err := s.Closure(context.Background(), infos[299].Path)
				_, err2 := s.Version(context.Background())
				if err != nil || err2 != nil {
					if !errors.Is(errors.Join(err, err2), errClosed) {
						t.Errorf("%v, %v", err, err2)
					}
					return
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n := openFiles(t); n != 0 {
		t.Errorf("%d files of the database are still open", n)
	}
}

// openFiles counts what this process has open of databases.
func openFiles(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc to count open files")
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.Contains(to, "db.sqlite") {
			n++
		}
	}
	return n
}

// TestStill: it says no at the first commit, deletion, replacement or closing,
// and yes when nothing was changed.
func TestStill(t *testing.T) {
	f := newFixture(t, "/nix/store")
	infos := pathInfos("/nix/store", 30, 3)
	f.put(infos[:10]...)
	s := f.open()
	ctx := context.Background()
	if s.Still(Version{}) {
		t.Error("the zero Version is a state")
	}
	var v Version
	now := func(step string) {
		t.Helper()
		was := v
		if was != (Version{}) && s.Still(was) {
			t.Errorf("%s: unseen", step)
		}
		var err error
		if v, err = s.Version(ctx); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if v == was {
			t.Errorf("%s: the same Version", step)
		}
		for range 3 {
			if _, err := s.Info(ctx, infos[0].Path); err != nil {
				t.Fatalf("%s: %v", step, err)
			}
			if !s.Still(v) {
				t.Errorf("%s: reading changed the state", step)
			}
		}
	}
	now("first")
	f.put(infos[10:]...)
	now("a commit")
	f.remove(infos[29].Path)
	now("a deletion")
	f.exec("pragma wal_checkpoint(truncate)")
	f.exec("update ValidPaths set registrationTime = 7")
	now("a commit after a checkpoint")
	f.exec("begin immediate")
	f.exec("update ValidPaths set registrationTime = 8")
	if !s.Still(v) {
		t.Error("what is not committed was seen")
	}
	f.exec("rollback")
	if !s.Still(v) {
		t.Error("a rollback was seen")
	}
	other := newFixtureIn(t, "/nix/store", shortDir(t))
	other.put(infos...)
	other.leaveWAL()
	for _, file := range []string{"-wal", "-shm", ""} {
		if err := os.Rename(databaseIn(other.state)+file, databaseIn(f.state)+file); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		if !s.Still(v) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	now("another database in its place")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Still(v) {
		t.Error("a closed store has a state")
	}
	indexFiles.Lock()
	defer indexFiles.Unlock()
	if len(indexFiles.open) > 0 {
		t.Errorf("%d -shm files are open", len(indexFiles.open))
	}
}

// A row that makes no sense is read a second time before it is believed.
func TestRowIsReadTwice(t *testing.T) {
	f := newFixture(t, "/nix/store")
	i := pathInfo("/nix/store", "a")
	f.put(i)
	s := f.open()
	bad := &RowError{Err: errors.New("nonsense")}
	for failures, want := range []error{nil, nil, bad} {
		asked := 0
		_, err := s.row(t.Context(), "x", func(context.Context, *database) (*PathInfo, error) {
			if asked++; asked <= failures {
				return nil, bad
			}
			return i, nil
		}, nil)
		if !errors.Is(err, want) || asked != min(failures+1, 2) {
			t.Errorf("%d times nonsense: asked %d times, %v", failures, asked, err)
		}
	}
}
