// image DIR VERSION BINARY… makes DIR, an OCI image layout with an image for each binary, whose
// names end in -linux-ARCH. An image is the binary and nothing else: no shell, no libraries, no base. What is in it depends
// on the binary and the version alone, so that anybody who builds it gets the same digests.
//
// It is a module of its own, since nothing of the product needs a registry's library.
package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: image DIR VERSION BINARY…")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// epoch is the time of everything in an image.
var epoch = time.Unix(0, 0).UTC()

func write(dir, version string, binaries []string) error {
	var index v1.ImageIndex = empty.Index
	for _, name := range binaries {
		_, arch, ok := strings.Cut(name, "-linux-")
		if !ok {
			return fmt.Errorf("%s does not end in -linux-ARCH", name)
		}
		img, err := image(name, arch, version)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform:    &v1.Platform{OS: "linux", Architecture: arch},
			Annotations: map[string]string{"org.opencontainers.image.ref.name": version + "-" + arch},
		}})
	}
	_, err := layout.Write(dir, index)
	return err
}

func image(binary, arch, version string) (v1.Image, error) {
	text, err := files(binary)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: epoch}
	config.Config = v1.Config{
		Entrypoint: []string{"/bin/narwharf"}, Cmd: []string{"serve", "--config", "/etc/narwharf/config.toml"},
		User: "65532:65532", WorkingDir: "/var/lib/narwharf", ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		Labels: map[string]string{"org.opencontainers.image.title": "narwharf", "org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "MIT"},
	}
	for i := range config.History {
		config.History[i].Created = v1.Time{Time: epoch}
	}
	return mutate.ConfigFile(img, config)
}

// files are what an image has: the binary, and a folder for its data and for what is unpacked.
func files(binary string) ([]byte, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	add := func(h tar.Header, content []byte) {
		h.ModTime, h.Size, h.Format = epoch, int64(len(content)), tar.FormatUSTAR
		if err == nil {
			err = t.WriteHeader(&h)
		}
		if err == nil {
			_, err = t.Write(content)
		}
	}
	for _, dir := range []struct {
		name string
		mode int64
		id   int
	}{{"bin/", 0o755, 0}, {"tmp/", 0o1777, 0}, {"var/", 0o755, 0}, {"var/lib/", 0o755, 0}, {"var/lib/narwharf/", 0o750, 65532}} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir.name, Mode: dir.mode, Uid: dir.id, Gid: dir.id}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/narwharf", Mode: 0o755}, program)
	if err == nil {
		err = t.Close()
	}
	return out.Bytes(), err
}
