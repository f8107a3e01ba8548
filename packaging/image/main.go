// Command image builds the container image of fpm-gate from scratch: the static program, a config, a folder for its
// sockets, and nothing else. packaging/image/build compiles the program and calls it.
//
// It needs neither root nor a container engine, and the same input gives the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user is the user and group of the program. It has no name in the image, so Kubernetes can check that it is not root.
const user = 65532

// options are what goes into the image, and where the image goes.
type options struct {
	program, config string // files
	arch, version   string
	time            time.Time // of all that is in it
	to              string    // an OCI archive
}

func main() {
	var o options
	flag.StringVar(&o.program, "program", "", "the static program")
	flag.StringVar(&o.config, "config", "", "its config")
	flag.StringVar(&o.arch, "arch", "amd64", "the architecture of the program")
	flag.StringVar(&o.version, "version", "", "its version, which becomes the tag")
	flag.StringVar(&o.to, "to", "", "the OCI archive to write")
	flag.Parse()
	seconds, _ := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64) // unset: 0
	o.time = time.Unix(seconds, 0).UTC()
	if err := build(o); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func build(o options) error {
	layer, err := filesOf(o)
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON),
		types.OCIManifestSchema1), layer)
	if err != nil {
		return err
	}
	image, err = mutate.ConfigFile(image, configOf(o, image))
	if err != nil {
		return err
	}
	return writeArchive(o, image)
}

// filesOf makes the layer with all files.
func filesOf(o options) (v1.Layer, error) {
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	for _, folder := range []struct {
		name string
		user int
	}{{"etc/", 0}, {"etc/fpm-gate/", 0}, {"run/", 0}, {"run/fpm-gate/", user}} {
		h := &tar.Header{
			Typeflag: tar.TypeDir, Name: folder.name, Mode: 0o755, Uid: folder.user, Gid: folder.user, ModTime: o.time,
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
	}
	if err := addFile(w, o, "etc/fpm-gate/fpm-gate.hcl", o.config, 0o644); err != nil {
		return nil, err
	}
	if err := addFile(w, o, "fpm-gate", o.program, 0o755); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
}

func addFile(w *tar.Writer, o options, name, from string, mode int64) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: o.time}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}

// configOf says how an engine runs the image.
func configOf(o options, image v1.Image) *v1.ConfigFile {
	c, err := image.ConfigFile()
	if err != nil {
		c = new(v1.ConfigFile)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Created = "linux", o.arch, v1.Time{Time: o.time}
	c.Config = v1.Config{
		User:       fmt.Sprintf("%d:%d", user, user),
		Entrypoint: []string{"/fpm-gate"},
		Cmd:        []string{"serve", "--config", "/etc/fpm-gate/fpm-gate.hcl"},
		WorkingDir: "/",
		StopSignal: "SIGQUIT", // drains, as the images of nginx and PHP-FPM do
		Volumes:    map[string]struct{}{"/run/fpm-gate": {}},
		// A panic must end by a signal: Go's own exit code for it, 2, means an invalid config.
		Env: []string{"GOTRACEBACK=crash"},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "fpm-gate",
			"org.opencontainers.image.description": "FastCGI session sidecar between a web server and PHP-FPM",
			"org.opencontainers.image.version":     o.version,
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.source":      "https://github.com/fpm-gate/fpm-gate",
		},
	}
	return c
}

// writeArchive writes an OCI layout with the image as a tar file.
func writeArchive(o options, image v1.Image) error {
	folder, err := os.MkdirTemp("", "fpm-gate-image")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	l, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	name := layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": o.version,
		"io.containerd.image.name":          "localhost/fpm-gate:" + o.version, // what docker load calls it
	})
	if err := l.AppendImage(image, name); err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		return addFile(w, o, filepath.ToSlash(relative), path, 0o644)
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(o.to, archive.Bytes(), 0o644)
}
