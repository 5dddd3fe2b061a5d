package remote

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
)

// hubSink is a repository of the hub as a destination, or a folder or a file of it. What
// uploads is the hub's own command, which knows its ways of storing: the output is made
// whole in a temporary folder, and becomes one commit.
type hubSink struct {
	*hub
	name string // in the repository, "" for all of it
}

// hubDest returns the destination at hf://ORG/NAME[@REV][/PATH].
func hubDest(address string) (files.Sink, error) {
	_, _, name, err := parseHub(address)
	if err != nil {
		return nil, usage.Errorf("%s: %w", unsignedText(address), err)
	}
	s, err := openHub(address, paceIn(0))
	if err != nil {
		return nil, err
	}
	if part, ok := s.(interface{ Whole() (files.Source, string) }); ok {
		s, _ = part.Whole()
	}
	return &hubSink{s.(*hub), name}, nil
}

func (s *hubSink) String() string { return strings.TrimSuffix(s.hub.String()+"/"+s.name, "/") }

// Ready refuses a destination to which nothing could be brought from this machine, before
// any work is done for it.
func (s *hubSink) Ready() error {
	if _, err := exec.LookPath("hf"); err != nil {
		return usage.Errorf("%s: the hub's own command uploads there, and is not installed: `pip install huggingface_hub`; or name a path, and later `hf upload %s PATH %s`", s, s.repo, cmp.Or(s.name, "."))
	}
	return nil
}

// Begin is [hubSink.BeginOutput] where nothing is known of what will be written.
func (s *hubSink) Begin(ctx context.Context, replace bool) (files.Output, error) {
	return s.BeginOutput(ctx, stage.Output{Dest: s.String(), Folder: stage.IsFolder(s.String()), Force: replace})
}

// CheckOutput refuses a destination that would overwrite something.
func (s *hubSink) CheckOutput(ctx context.Context, o stage.Output) error {
	_, _, err := s.there(ctx, o)
	return err
}

// there lists what is there and may be replaced, and the commit that has it, "" for none.
func (s *hubSink) there(ctx context.Context, o stage.Output) (names []string, commit string, err error) {
	fresh := &hub{client: s.client, endpoint: s.endpoint, repo: s.repo, revision: s.revision}
	t, err := fresh.list(ctx)
	if errors.As(err, new(noRepository)) {
		return nil, "", nil // the command makes it
	}
	if err != nil {
		return nil, "", err
	}
	folder := s.name
	if !o.Folder {
		folder = strings.TrimPrefix(path.Dir(s.name), ".")
	}
	for _, name := range t.names {
		below, ok := strings.CutPrefix(name, strings.TrimPrefix(folder+"/", "/"))
		if ok && name != ".gitattributes" && (o.Folder || name == s.name) {
			names = append(names, below)
		}
	}
	switch {
	case len(names) > 0 && !o.Force:
		return nil, "", usage.Existsf("%s exists: name another destination, or give `Force` to replace it", o.Dest)
	case len(names) == 0 || !o.Folder:
		return names, t.commit, nil
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "README.md" }) // the page of the model stays
	index, err := s.index(ctx, fresh, t, folder)
	if err != nil {
		return nil, "", err
	}
	return names, t.commit, o.CheckNames(o.Dest, names, index)
}

// index reads the index of a pipeline that is there.
func (s *hubSink) index(ctx context.Context, h *hub, t *tree, folder string) ([]byte, error) {
	name := path.Join(folder, pipelineIndex)
	if _, ok := t.files[name]; !ok {
		return nil, nil
	}
	text, _, err := h.text(ctx, request{address: below(h.endpoint.JoinPath(h.repo, "resolve", t.commit), name)})
	return text, h.explain(err)
}

// BeginOutput opens a temporary folder for an output.
func (s *hubSink) BeginOutput(ctx context.Context, o stage.Output) (files.Output, error) {
	if offline() {
		return nil, usage.Errorf("HF_HUB_OFFLINE forbids to ask the hub")
	}
	if err := s.Ready(); err != nil {
		return nil, err
	}
	old, commit, err := s.there(ctx, o)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tensorpress-")
	if err != nil {
		return nil, err
	}
	local, err := stage.Open(stage.Output{Dest: filepath.Join(dir, "model"), Folder: true})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &hubOutput{hubSink: s, of: o, old: old, commit: commit, dir: dir, local: local, run: watch.Of(ctx)}, nil
}

// hubOutput is an output on its way to the hub.
type hubOutput struct {
	*hubSink
	of     stage.Output
	old    []string
	commit string
	dir    string
	local  *stage.Stage
	names  []string
	size   int64 // of all files
	run    *watch.Run
}

// Create adds a file.
func (o *hubOutput) Create(name string, size int64) (io.WriterAt, error) {
	o.names = append(o.names, name)
	o.size += size
	o.run.Expect(size)
	return o.local.Create(name, size)
}

// Free is how many bytes can still be written on this machine.
func (o *hubOutput) Free() int64 { return o.local.Free() }

// Commit uploads all files, as one commit.
func (o *hubOutput) Commit(ctx context.Context) error {
	watch.Of(ctx).Enter(watch.Uploading)
	if err := o.local.Commit(ctx); err != nil {
		return err
	}
	if _, commit, err := o.there(ctx, o.of); err != nil || commit != o.commit {
		if err == nil {
			err = usage.Existsf("%s has become another while this ran: it stays as it is, and nothing of this run is kept: run again", o.of.Dest)
		}
		return err
	}
	from, to := filepath.Join(o.dir, "model"), cmp.Or(o.name, ".")
	args := []string{"upload", o.repo}
	if !o.of.Folder {
		from = filepath.Join(from, filepath.FromSlash(o.names[0]))
	}
	args = append(args, from, to, "--revision", o.revision, "--private", "--commit-message", "Upload by tensorpress")
	for _, name := range o.old {
		if o.of.Folder && !slices.Contains(o.names, name) {
			args = append(args, "--delete", name)
		}
	}
	if err := o.upload(ctx, args); err != nil {
		return err
	}
	watch.Of(ctx).Uploaded(o.size)
	return nil
}

// upload runs the hub's command, whose last words are those of an error.
func (o *hubOutput) upload(ctx context.Context, args []string) error {
	c := exec.CommandContext(ctx, "hf", args...)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = clearing
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	err := c.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		return fmt.Errorf("%s: `hf upload` failed (%w): %s", o.of.Dest, err, words(lines[len(lines)-1]))
	}
	return nil
}

// Abort removes the temporary folder.
func (o *hubOutput) Abort() error { return errors.Join(o.local.Abort(), os.RemoveAll(o.dir)) }
