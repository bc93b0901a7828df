package nixstore

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"narwharf/cache/nixstore/pathinfo"
	"narwharf/narinfo"
)

// closureOf is one statement. It may take a second for 100,000 paths.
func (db *database) closureOf(ctx context.Context, roots []narinfo.Path) ([]*narinfo.Info, error) {
	storeDir := db.storeDir
	full := make([]string, len(roots))
	for i, r := range roots {
		full[i] = r.In(storeDir)
	}
	list, err := json.Marshal(full)
	if err != nil {
		return nil, err
	}
	type row struct {
		info *narinfo.Info
		refs string
	}
	var rows []row
	byID := map[int64]narinfo.Path{}
	err = db.rows(ctx, db.closure, string(list), func(r []any) error {
		i, refs, err := scan(storeDir, r[1:])
		if err != nil {
			return err
		}
		byID[number(r[0])] = i.Path
		rows = append(rows, row{i.Info, refs})
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := make([]*narinfo.Info, len(rows))
	for n, r := range rows {
		all[n] = r.info
		if r.refs == "" {
			continue
		}
		refs := make([]narinfo.Path, 0, strings.Count(r.refs, " ")+1)
		for digits := range strings.SplitSeq(r.refs, " ") {
			id, err := strconv.ParseInt(digits, 10, 64)
			p, ok := byID[id]
			if err != nil || !ok {
				return nil, missingRow(r.info.Path.In(storeDir), digits)
			}
			refs = append(refs, p)
		}
		slices.Sort(refs)
		r.info.References = slices.Compact(refs)
	}
	pathinfo.Sort(all)
	for _, r := range roots {
		if _, ok := slices.BinarySearchFunc(all, r, func(i *narinfo.Info, p narinfo.Path) int { return strings.Compare(string(i.Path), string(p)) }); !ok {
			return nil, fmt.Errorf("%s %w", r.In(storeDir), ErrNotValid)
		}
	}
	return all, nil
}
