package tensorpress

import (
	"context"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// place is where the files of a model go: a stage, or a folder in one.
type place interface {
	Create(name string) (io.WriterAt, error)
	WriteFile(name string, data []byte) error
	CopyFile(ctx context.Context, name, from string) error
}

func isFolder(dest string) bool { return filepath.Ext(filepath.Clean(dest)) != ".safetensors" }

// output is what is asked for of the stage: where the files go, and what may be
// replaced there.
func (j *job) output(dest string, force bool) (o stage.Output, err error) {
	o = stage.Output{Dest: dest, Folder: isFolder(dest), Force: force, Parents: j.parents}
	if j.isPipeline() {
		o.Sources = []string{j.source}
	} else {
		o.Sources = sourcePaths(j.list[0].c, o.Folder)
	}
	if !o.Folder {
		j.side, err = sideFileOf(j.list[0].plan, dest, force)
		o.Beside = j.side.beside()
		return o, err
	}
	all := &listing{}
	if err := j.companions(context.Background(), all.in, dest); err != nil {
		return o, err
	}
	j.beside = all.bytes
	o.Contents = stage.Contents{Files: all.names, Stems: map[string]string{}}
	for _, one := range j.list {
		o.Stems[one.folder] = one.c.Stem()
		for _, f := range one.plan.Files {
			o.Files = append(o.Files, path.Join(one.folder, f.Name))
		}
	}
	return o, nil
}

// listing is a place that knows what is written and writes nothing.
type listing struct {
	names []string
	bytes int64
}

func (l *listing) in(folder string) place { return listed{l, folder} }

// listed is a folder of one.
type listed struct {
	*listing
	folder string
}

func (l listed) add(name string) { l.names = append(l.names, path.Join(l.folder, name)) }

func (l listed) Create(name string) (io.WriterAt, error) {
	l.add(name)
	return nil, nil
}

func (l listed) WriteFile(name string, data []byte) error {
	l.add(name)
	return nil
}

func (l listed) CopyFile(_ context.Context, name, from string) error {
	l.add(name)
	if info, err := os.Stat(from); err == nil { // else the copy says what is wrong
		l.bytes += info.Size()
	}
	return nil
}

// sourcePaths are the files that are read, and the folder where one was named or,
// with its index, is copied.
func sourcePaths(c *checkpoint.Checkpoint, copied bool) []string {
	paths := []string{c.Path}
	if copied && c.Index != "" {
		paths = append(paths, c.Dir)
	}
	for _, name := range c.ShardNames {
		paths = append(paths, filepath.Join(c.Dir, filepath.FromSlash(name)))
	}
	return paths
}

func createFiles(s place, files []plan.File) ([]*safetensors.Writer, error) {
	var all []*safetensors.Writer
	for _, file := range files {
		f, err := s.Create(file.Name)
		if err != nil {
			return nil, err
		}
		w, err := safetensors.NewBodies(f, file.Header)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

// writeCompanions writes what stands beside a model's weights: configs, the index,
// and in a folder all other files of the source.
func (j *job) writeCompanions(ctx context.Context, s place, one *model, dest string) error {
	c, p := one.c, one.plan
	if !isFolder(dest) {
		return j.side.write(s)
	}
	if err := copyOthers(ctx, s, one); err != nil {
		return err
	}
	if len(p.Files) > 1 {
		if err := s.WriteFile(c.IndexName(), []byte(p.Index())); err != nil {
			return err
		}
	}
	if p.ConfigFile && c.Config != nil { // else that is where it goes anyway
		if err := s.WriteFile(layout.ConfigFile, []byte(pyjson.DumpSorted(p.Config.Encode()))); err != nil {
			return err
		}
	}
	return writeModelConfig(s, c, p)
}
