package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"narwharf/narinfo/clip"
)

const (
	maxQuery  = 8 << 10
	maxAnswer = 1 << 20 // of Prometheus: some thousand series
)

// prometheus is a query with a bound.
type prometheus struct {
	spec  *Spec
	url   string
	bound bound
}

func newPrometheus(s *Spec) (asker, error) {
	u, err := parseURL("prometheus", s.Prometheus)
	if err != nil {
		return nil, err
	}
	if strings.Contains(u.Path, "/api/v1") || u.RawQuery != "" {
		return nil, fmt.Errorf("prometheus %s: leave out /api/v1 and what follows; the query stands in query", clip.Quote(s.Prometheus, 200))
	}
	switch s.NoData {
	case "":
		s.NoData = string(None)
	case string(Yes), string(No), string(None):
	default:
		return nil, fmt.Errorf("no_data %s is none of %q, %q, %q", clip.Quote(s.NoData, 64), None, Yes, No)
	}
	switch {
	case strings.TrimSpace(s.Query) == "":
		return nil, errors.New("query is missing: what is Prometheus to be asked?")
	case len(s.Query) > maxQuery:
		return nil, fmt.Errorf("query has more than %d bytes", maxQuery)
	case s.Bound == "":
		return nil, errors.New(`bound is missing: what is a good answer? as "< 0.01"`)
	}
	b, err := parseBound(s.Bound)
	if err != nil {
		return nil, err
	}
	return &prometheus{s, u.JoinPath("api/v1/query").String(), b}, nil
}

// result is the answer of Prometheus: https://prometheus.io/docs/prometheus/latest/querying/api/
type result struct {
	Status string `json:"status"`
	Error  string `json:"error"`
	Data   struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
	Warnings []string `json:"warnings"`
}

type series struct {
	Metric map[string]string `json:"metric"`
	Value  sample            `json:"value"`
}

// sample is [time, "value"].
type sample [2]any

func (s sample) number() (float64, error) {
	text, ok := s[1].(string)
	if !ok {
		return 0, errors.New("a series has no number: a native histogram? histogram_quantile() and histogram_count() make numbers of one")
	}
	return strconv.ParseFloat(text, 64)
}

func (p *prometheus) ask(ctx context.Context, _ *About) (Said, string) {
	form := url.Values{"query": {p.spec.Query}, "timeout": {strconv.FormatFloat(p.spec.Timeout.Seconds(), 'f', -1, 64)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, strings.NewReader(form.Encode()))
	if err != nil {
		return None, err.Error()
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := p.spec.do(req)
	if err != nil {
		return None, said(ctx, err, p.spec.Timeout)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 3 {
		return None, words(resp)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return None, said(ctx, err, p.spec.Timeout)
	case len(text) > maxAnswer:
		return None, fmt.Sprintf("the answer has more than %d bytes: a query that aggregates, as sum(…) or max by (job) (…), is meant here", maxAnswer)
	}
	var r result
	switch err := json.Unmarshal(text, &r); {
	case err != nil:
		page := strings.Join(strings.Fields(string(text[:min(len(text), maxWords)])), " ")
		return None, fmt.Sprintf("%s, and no answer of Prometheus: %s", resp.Status, page)
	case r.Status != "success" || resp.StatusCode/100 != 2:
		return None, fmt.Sprintf("%s: %s", resp.Status, r.Error)
	}
	return p.judge(&r)
}

// judge is what an answer means.
func (p *prometheus) judge(r *result) (Said, string) {
	all, err := r.series()
	if err != nil {
		return None, err.Error()
	}
	var out, nan []string
	most := math.NaN()
	for i := range all {
		v, err := all[i].Value.number()
		switch {
		case err != nil:
			return None, err.Error()
		case math.IsNaN(v):
			nan = append(nan, "NaN"+labels(all[i].Metric))
			continue
		case !p.bound.keeps(v):
			out = append(out, number(v)+labels(all[i].Metric))
		}
		if math.IsNaN(most) || math.Abs(v-p.bound.limit) < math.Abs(most-p.bound.limit) {
			most = v
		}
	}
	switch {
	case len(out) > 0:
		return No, count(out, len(all)) + " is not " + p.bound.String()
	case len(all) == 0:
		return p.nothing("the answer has no series")
	case len(nan) > 0:
		return p.nothing(count(nan, len(all)) + " is no number")
	case len(r.Warnings) > 0:
		return None, "answered in part: " + strings.Join(r.Warnings, "; ")
	case len(all) > 1:
		return Yes, fmt.Sprintf("all %d series are %s, the nearest %s", len(all), p.bound, number(most))
	}
	return Yes, fmt.Sprintf("%s is %s", number(most), p.bound)
}

// nothing is what it means that there is no data.
func (p *prometheus) nothing(why string) (Said, string) {
	if said := Said(p.spec.NoData); said != None {
		return said, fmt.Sprintf("%s, which is a %s by no_data", why, said)
	}
	return None, why
}

func (r *result) series() (list []series, err error) {
	switch r.Data.Type {
	case "vector":
		err = json.Unmarshal(r.Data.Result, &list)
	case "scalar":
		list = make([]series, 1)
		err = json.Unmarshal(r.Data.Result, &list[0].Value)
	default:
		return nil, fmt.Errorf("the query gives a %s: one that gives a vector or a scalar is meant here, as avg_over_time(x[5m]) for x[5m]", r.Data.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("Prometheus answered what is no %s: %w", r.Data.Type, err)
	}
	return list, nil
}

// count is the first of some values, and how many there are.
func count(some []string, of int) string {
	switch {
	case of == 1:
		return some[0]
	case len(some) == 1:
		return fmt.Sprintf("one of %d series: %s", of, some[0])
	}
	return fmt.Sprintf("%d of %d series, the first of them: %s", len(some), of, some[0])
}

// labels are those of a series, as Prometheus writes them.
func labels(m map[string]string) string {
	if len(m) == 0 {
		return ""
	}
	parts := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, name+"="+strconv.Quote(m[name]))
	}
	return " {" + strings.Join(parts, ", ") + "}"
}
