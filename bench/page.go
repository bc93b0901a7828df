//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"narwharf/bench/load"
	"narwharf/e2e/browser"
	"narwharf/hooks/api"
	"narwharf/signing"
)

// Targets of the page of a channel (DESIGN, section 9).
const (
	maxPage  = 300 << 10
	maxPaint = 300 * time.Millisecond
	maxSeen  = time.Second
	maxShare = 10.0 // percent of a core
)

// pageOf is the path of the channel's page.
const pageOf = "/ui/channels/" + webChannel

// pageRows measures the page of a channel with many hosts, a tenth of which is in the first wave of a
// roll-out: how large it is, how soon a browser has it, and what it costs that people look at it.
func pageRows(p plan, dir string, start func(string) (*server, error)) (rows []row, err error) {
	if !browser.Available() {
		return nil, errors.New("the page's rows need Debian's chromium")
	}
	h, _, err := gather(p, dir, start)
	if err != nil {
		return nil, err
	}
	defer func() { h.server.stop() }()
	defer h.fleet.Close()
	release, err := h.inWaves()
	if err != nil {
		return nil, err
	}
	wave, end, err := h.stay(release.seq, len(h.names)/10)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	reports, err := load.NewFleet(h.server.addr)
	if err != nil {
		return nil, err
	}
	defer reports.Close()
	look := &look{hosts: h, reports: reports, wave: wave, release: release}
	for name := range look.tokens { // a credential has no more than 64 pages open
		if look.tokens[name], err = h.server.newToken(fmt.Sprintf("person-%d", name), "operate"); err != nil {
			return nil, err
		}
	}
	size, err := look.sizeRow()
	if err != nil {
		return nil, err
	}
	rows = append(rows, size)
	shown, err := look.browserRows(p)
	if err != nil {
		return nil, err
	}
	rows = append(rows, shown...)
	for _, kind := range []struct {
		pages int
		wave  bool
	}{{100, false}, {10, true}} {
		r, err := look.costRow(p, kind.pages, kind.wave)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// inWaves has all hosts run a release and stage the next one, whose first wave is a tenth of them.
func (h *hosts) inWaves() (*promotion, error) {
	h.counter++
	first := h.promoter.systems[h.promoter.seq%2].StorePath
	if err := h.tell(h.fleet, all(len(h.names)), func(i int) ([]byte, error) { return h.runs(i, api.OK, h.promoter.seq, first, first) }); err != nil {
		return nil, fmt.Errorf("the first reports: %w", err)
	}
	if err := h.policy(`{"rollout": {"waves": [{"name": "canary", "max": "10%", "bake": "30d"}, {}], "max_concurrency": "100%"}}`); err != nil {
		return nil, err
	}
	release, err := h.promoter.next([]string{signing.Everyone})
	if err != nil {
		return nil, err
	}
	if _, err := h.promoter.send(release); err != nil {
		return nil, err
	}
	h.counter++
	err = h.tell(h.fleet, all(len(h.names)), func(i int) ([]byte, error) { return h.staged(i, release, first) })
	return release, err
}

func all(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// tell has some hosts send a report each over connections of f, and waits for the answers. Asked to
// ask again, a host does.
func (h *hosts) tell(f *load.Fleet, who []int, report func(i int) ([]byte, error)) error {
	answered := 0
	for at, i := range who {
		text, err := report(i)
		if err == nil && f.Len() <= at {
			err = f.Join(text)
		} else if err == nil {
			err = f.Send(at, text)
		}
		if err != nil {
			return err
		}
	}
	return f.Collect(hostLimit, func() bool { return answered == len(who) }, func(at int, r load.Reply) ([]byte, error) {
		switch r.Status {
		case http.StatusNoContent:
			answered++
			return nil, nil
		case http.StatusServiceUnavailable:
			return report(who[at])
		}
		return nil, fmt.Errorf("%s was told %d %.300s", h.names[who[at]], r.Status, r.Body)
	})
}

// stay has all hosts poll until the function is called that it returns, and waits until so many were
// let begin with a release.
func (h *hosts) stay(seq int64, wave int) (began []int, end func() error, err error) {
	for i := range h.names {
		if err := h.fleet.Send(i, h.poll(i, agentWait())); err != nil {
			return nil, nil, err
		}
	}
	grant, granted := fmt.Appendf(nil, `"grant":{"seq":%d,`, seq), make(chan int, len(h.names))
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			err := h.fleet.Collect(time.Second, nil, func(i int, r load.Reply) ([]byte, error) {
				wait := agentWait()
				if r.Status == http.StatusOK { // all are told something at once, and are not to come back at once
					h.etags[i], wait = string(r.Field("etag")), 1+rand.IntN(agentWait())
				}
				if bytes.Contains(r.Body, grant) && len(granted) < cap(granted) {
					granted <- i
				}
				return h.poll(i, wait), nil
			})
			select {
			case <-stop:
			default:
				if err == nil {
					continue
				}
			}
			ended <- err
			return
		}
	}()
	end = func() error { close(stop); return <-ended }
	for limit := time.After(hostLimit); len(began) < wave; {
		select {
		case i := <-granted:
			if !slices.Contains(began, i) {
				began = append(began, i)
			}
		case err := <-ended:
			return nil, nil, err
		case <-limit:
			return nil, nil, errors.Join(fmt.Errorf("%d hosts were let begin, not %d", len(began), wave), end())
		}
	}
	return began, end, nil
}

// runs is the request by which host i says that it is in a state of a release.
func (h *hosts) runs(i int, state api.State, seq int64, wanted, current string) ([]byte, error) {
	return h.status(i, &api.Status{
		State: state, Seq: seq, Attempt: fmt.Sprintf("%s-%d", h.names[i], seq), Action: string(signing.Auto), Wanted: wanted,
		Current: current, Booted: current, Profile: current, Confirmed: current, HighestSeq: seq, CurrentGeneration: seq, BootGeneration: seq,
	}, nil)
}

// A look is somebody's at the page.
type look struct {
	*hosts
	tokens  [2]string   // of people
	wave    []int       // hosts of the first one
	reports *load.Fleet // of theirs
	release *promotion
}

func (l *look) get(who int, path string) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+l.server.addr+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+l.tokens[who%len(l.tokens)])
	resp, err := http.DefaultClient.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		_ = resp.Body.Close()
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, text)
	}
	return resp, err
}

// asset is what a page loads from the server.
var asset = regexp.MustCompile(`(?:href|src)="([^"]+\.(?:css|js|svg)[^"]*)"`)

// sizeRow measures the page with its style and script, as it is and packed by who would pack it.
func (l *look) sizeRow() (row, error) {
	sum := 0
	read := func(path string) (string, error) {
		resp, err := l.get(0, path)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		sum += len(text)
		return string(text), err
	}
	text, err := read(pageOf)
	if err != nil {
		return row{}, err
	}
	page := sum
	before, err := l.server.cpu()
	if err != nil {
		return row{}, err
	}
	const times = 5
	for range times {
		if _, err := read(pageOf); err != nil {
			return row{}, err
		}
	}
	after, err := l.server.cpu()
	if err != nil {
		return row{}, err
	}
	sum = page
	for _, m := range asset.FindAllStringSubmatch(text, -1) {
		if _, err := read(m[1]); err != nil {
			return row{}, err
		}
	}
	r := row{what: fmt.Sprintf("page of a channel with %d hosts", len(l.names)), values: [2]string{fmt.Sprintf("%d KB", page/1000)}, goal: "< 300 KB", missed: sum >= maxPage}
	r.remark = fmt.Sprintf("with style, script and icon %d KB, nothing packed", sum/1000)
	r.cpus[0] = fmt.Sprintf("%.1f ms each", float64((after-before).Microseconds())/1000/times)
	progress("%s: %s (%s; %s)", r.what, r.values[0], r.remark, r.cpus[0])
	return r, nil
}

// owner is who has a browser here: what fails is a panic with an error, which opened returns.
type owner struct {
	dir  string
	ends []func()
}

type failure struct{ error }

func (o *owner) Helper()                           {}
func (o *owner) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }
func (o *owner) Cleanup(end func())                { o.ends = append(o.ends, end) }
func (o *owner) TempDir() string                   { return o.dir }

// browse does something in a browser.
func browse(do func(*browser.Page) error) (err error) {
	dir, err := os.MkdirTemp("", "narwharf-bench-browser-")
	if err != nil {
		return err
	}
	defer remove(dir)
	o := &owner{dir: dir}
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failure)
			if !ok {
				panic(p)
			}
			err = f.error
		}
		for _, end := range slices.Backward(o.ends) {
			end()
		}
	}()
	return do(browser.New(o))
}

// wellCells is how many hosts the page draws as well.
const wellCells = `[...document.querySelectorAll('svg.cells path.w')].flatMap(p => [...p.getAttribute('d').matchAll(/h(\d+)/g)]).reduce((n, m) => n + Number(m[1]), 0)`

// browserRows measures how soon a browser shows the page, and what a tenth of the hosts report then.
func (l *look) browserRows(p plan) (rows []row, err error) {
	err = browse(func(b *browser.Page) error {
		b.Header("Authorization", "Bearer "+l.tokens[0])
		b.Size(1280, 900)
		var answers, loads, paints []float64
		for range p.looks {
			b.Open("http://" + l.server.addr + pageOf)
			const painted = "performance.getEntriesByName('first-contentful-paint').length > 0"
			if !b.Until(painted, hostLimit) {
				return errors.New("the page is not painted")
			}
			for script, list := range map[string]*[]float64{
				"performance.getEntriesByType('navigation')[0].responseEnd": &answers, "performance.getEntriesByType('navigation')[0].loadEventEnd": &loads, "performance.getEntriesByName('first-contentful-paint')[0].startTime": &paints,
			} {
				ms, err := strconv.ParseFloat(b.Eval(script), 64)
				if err != nil {
					return err
				}
				*list = append(*list, ms)
			}
		}
		paint := row{what: fmt.Sprintf("… from a click to its first paint in chromium, median of %d", p.looks), values: [2]string{fmt.Sprintf("%.0f ms", median(paints))}}
		paint.remark = fmt.Sprintf("the server's answer was there after %.0f ms, all loaded after %.0f ms; the slowest paint %.0f ms", median(answers), median(loads), slices.Max(paints))
		paint.goal, paint.missed = "< 300 ms", max(median(paints), median(loads)) >= float64(maxPaint.Milliseconds())
		progress("%s: %s (%s)", paint.what, paint.values[0], paint.remark)
		seen, err := l.seenRow(b)
		rows = []row{paint, seen}
		return err
	})
	return rows, err
}

// seenRow has the hosts of the first wave report, and looks when the open page shows all of them.
func (l *look) seenRow(b *browser.Page) (row, error) {
	before, err := strconv.Atoi(b.Eval(wellCells))
	if err != nil {
		return row{}, err
	}
	l.counter++
	began := time.Now()
	if err := l.tell(l.reports, l.wave, func(i int) ([]byte, error) {
		return l.runs(i, api.OK, l.release.seq, l.release.system, l.release.system)
	}); err != nil {
		return row{}, err
	}
	reported := time.Now()
	if !b.Until(fmt.Sprintf("%s >= %d", wellCells, before+len(l.wave)), 30*time.Second) {
		return row{}, fmt.Errorf("%d hosts reported, and the page does not show it: %d were well before, %s are", len(l.wave), before, b.Eval(wellCells))
	}
	took := time.Since(reported)
	r := row{what: fmt.Sprintf("… %d hosts report that they are well, until the open page shows it", len(l.wave)), values: [2]string{ms(took)}}
	r.remark = fmt.Sprintf("since the last report; all were sent in %s", ms(reported.Sub(began)))
	r.goal, r.missed = "< 1 s", took >= maxSeen
	progress("%s: %s (%s)", r.what, r.values[0], r.remark)
	return r, nil
}

// opened finds how a page is followed.
var opened = regexp.MustCompile(`data-live="([^"]*)"(?: data-seen="([^"]*)")?`)

// looksAt is what the one looks at who comes as number i: of five pages two are the channel, one all channels, one the list of its
// hosts, and one a host that nobody else looks at.
func (l *look) looksAt(i int) string {
	return []string{pageOf, "/ui/", "/ui/hosts?channel=" + webChannel, pageOf, "/ui/hosts/" + l.names[i]}[i%5]
}

// follow opens pages and reads what comes, as browsers do; the function that it returns ends that.
func (l *look) follow(n int) (end func() error, err error) {
	var streams []io.Closer
	var reading sync.WaitGroup
	var events sync.Map
	end = func() error {
		for _, s := range streams {
			_ = s.Close()
		}
		reading.Wait()
		quiet := 0
		for i := range streams {
			if _, ok := events.Load(i); !ok {
				quiet++
			}
		}
		if quiet > 0 {
			return fmt.Errorf("%d of %d pages were sent nothing", quiet, n)
		}
		return nil
	}
	for i := range n {
		page, err := l.get(i, l.looksAt(i))
		if err != nil {
			return end, err
		}
		text, err := io.ReadAll(page.Body)
		_ = page.Body.Close()
		m := opened.FindStringSubmatch(string(text)) // what is followed, and what was seen
		if err != nil || m == nil {
			return end, fmt.Errorf("the page is not live: %w", err)
		}
		s, err := l.get(i, "/ui/live?view="+strings.ReplaceAll(m[1], "&amp;", "%26")+"&seen="+m[2])
		if err != nil {
			return end, err
		}
		streams = append(streams, s.Body)
		reading.Go(func() {
			for lines := bufio.NewReader(s.Body); ; {
				if _, err := lines.ReadString('\n'); err != nil {
					return
				}
				events.Store(i, true)
			}
		})
	}
	return end, nil
}

// costRow measures what the server works more while pages are open.
func (l *look) costRow(p plan, pages int, wave bool) (row, error) {
	work := func() (float64, error) {
		began := time.Now()
		before, err := l.server.cpu()
		if err != nil {
			return 0, err
		}
		for at := range p.looking {
			if wave {
				err = l.report(at, p.looking)
			}
			if err != nil {
				return 0, err
			}
			time.Sleep(time.Until(began.Add(time.Duration(at+1) * time.Second)))
		}
		after, err := l.server.cpu()
		return 100 * (after - before).Seconds() / time.Since(began).Seconds(), err
	}
	time.Sleep(3 * time.Second) // what was before is over
	before, err := work()
	if err != nil {
		return row{}, err
	}
	end, err := l.follow(pages)
	if err != nil {
		return row{}, errors.Join(err, end())
	}
	time.Sleep(time.Second) // the first events are the pages' own
	looked, err := work()
	if err = errors.Join(err, end()); err != nil {
		return row{}, err
	}
	after, err := work() // what else the server does is not even: it counts before and after
	if err != nil {
		return row{}, err
	}
	alone := (before + after) / 2
	r := row{what: fmt.Sprintf("… %d open pages, when nothing happens", pages), values: [2]string{fmt.Sprintf("%.1f %% of a core", looked-alone)}}
	if wave {
		r.what = fmt.Sprintf("… %d open pages, while a tenth of the hosts report twice in %d s", pages, p.looking)
	}
	r.remark = fmt.Sprintf("of five two the channel, and one each all channels, its hosts, and a host of its own; the server %.1f %% with them, %.1f %% before and %.1f %% after", looked, before, after)
	r.goal, r.missed = "< 10 %", looked-alone >= maxShare
	progress("%s: %s (%s)", r.what, r.values[0], r.remark)
	return r, nil
}

// report has a part of the first wave's hosts report twice: that they are on probation, and well.
func (l *look) report(at, of int) error {
	part := l.wave[len(l.wave)*at/of : len(l.wave)*(at+1)/of]
	for _, state := range []api.State{api.Probation, api.OK} {
		l.counter++
		if err := l.tell(l.reports, part, func(i int) ([]byte, error) {
			return l.runs(i, state, l.release.seq, l.release.system, l.release.system)
		}); err != nil {
			return err
		}
	}
	return nil
}
