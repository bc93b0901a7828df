package nar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"
	"testing/iotest"

	gonix "github.com/nix-community/go-nix/pkg/nar"
)

// Whatever the bytes: the Reader ends, says the same however they arrive, and what it accepts is
// the one spelling of its tree and good to another reader.
func FuzzReader(f *testing.F) {
	for _, b := range samples(f) {
		f.Add(b)
	}
	for _, m := range malformeds() {
		if b := spell(m.parts...); len(b) < 10_000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := read(bytes.NewReader(b))
		size, checked := Check(iotest.HalfReader(bytes.NewReader(b)))
		if fmt.Sprint(err) != fmt.Sprint(checked) || size > int64(len(b)) {
			t.Fatalf("Next says %v, Check %v after %d of %d bytes", err, checked, size, len(b))
		}
		list, listed := List(iotest.DataErrReader(bytes.NewReader(b)), 1<<20)
		if fmt.Sprint(err) != fmt.Sprint(listed) {
			t.Fatalf("Next says %v, List %v", err, listed)
		}
		if err != nil {
			var format *FormatError
			if !errors.As(err, &format) || len(err.Error()) >= 900 {
				t.Fatalf("not an error for people: %v", err)
			}
			return
		}
		if !bytes.Equal(write(t, files...), b) {
			t.Fatal("accepted, but not canonical")
		}
		for i := range files {
			if n := list.Lookup(files[i].Path); n == nil || n.Offset != files[i].Offset {
				t.Fatalf("%q is listed as %+v", files[i].Path, n)
			}
		}
		theirs, err := gonixRead(b)
		if err != nil {
			t.Fatalf("go-nix refuses it: %v", err)
		}
		clearOffsets(files)
		if !reflect.DeepEqual(theirs, files) {
			t.Fatalf("go-nix reads %+v, we %+v", theirs, files)
		}
	})
}

// gonixRead reads a NAR with go-nix, which is right about good ones.
func gonixRead(b []byte) ([]file, error) {
	rd, err := gonix.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	types := map[gonix.NodeType]Type{gonix.TypeRegular: Regular, gonix.TypeDirectory: Directory, gonix.TypeSymlink: Symlink}
	var files []file
	for {
		h, err := rd.Next()
		if err == io.EOF {
			return files, rd.Close()
		}
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(rd)
		if err != nil {
			return nil, err
		}
		files = append(files, file{Entry{Path: h.Path[1:], Type: types[h.Type], Executable: h.Executable, Size: h.Size, Target: h.LinkTarget}, string(body)})
	}
}

// What is taken for a listing is JSON, is a tree that a NAR can hold, and comes back the same.
func FuzzParseListing(f *testing.F) {
	for _, b := range samples(f) {
		root, err := List(bytes.NewReader(b), 1<<20)
		if err != nil {
			f.Fatal(err)
		}
		if text, err := root.AppendJSON(nil); err == nil {
			f.Add(text)
		}
	}
	for _, text := range badListings {
		f.Add([]byte(text.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		root, err := ParseListing(text)
		if err != nil {
			if len(err.Error()) >= 900 {
				t.Fatalf("not an error for people: %v", err)
			}
			return
		}
		if !json.Valid(text) {
			t.Fatal("accepted, but not JSON")
		}
		out, err := root.AppendJSON(nil)
		if err != nil || !json.Valid(out) {
			t.Fatalf("written again: %v: %s", err, out)
		}
		again, err := ParseListing(out)
		if err != nil || !reflect.DeepEqual(again, root) {
			t.Fatalf("%s comes back as %+v (%v)", out, again, err)
		}
		var nar []file // every tree that the parser takes can be a NAR
		var walk func(n *Node, path string)
		walk = func(n *Node, path string) {
			nar = append(nar, file{Entry: Entry{Path: path, Type: n.Type, Executable: n.Executable, Target: n.Target}})
			if path != "" {
				path += "/"
			}
			for i := range n.Entries {
				walk(&n.Entries[i], path+n.Entries[i].Name)
			}
		}
		walk(root, "")
		write(t, nar...)
	})
}
