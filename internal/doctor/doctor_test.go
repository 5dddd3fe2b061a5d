package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/report"
)

// tree writes files below a folder.
func tree(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o777); err != nil {
			t.Fatal(err)
		}
	}
}

// alone makes a home folder and a current folder in which nothing is found but what a test
// puts there.
func alone(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for _, name := range []string{"HOME", "USERPROFILE", "XDG_CONFIG_HOME", "APPDATA"} {
		t.Setenv(name, folder)
	}
	for _, name := range []string{"VIRTUAL_ENV", "CONDA_PREFIX", "PATH", "PYENV_VERSION"} {
		t.Setenv(name, "")
	}
	work := filepath.Join(folder, "work")
	if err := os.Mkdir(work, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Chdir(work)
	return folder
}

func found(d *report.Diagnosis) string {
	var all []string
	for _, p := range d.Pythons {
		all = append(all, p.From+" "+p.Version)
		for _, one := range p.Packages {
			all = append(all, one.Name+" "+one.Version)
		}
	}
	for _, a := range d.Apps {
		all = append(all, a.App+" "+a.Version+": "+a.Loads)
	}
	return strings.Join(append(all, d.Notes...), "\n")
}

// script would leave a mark if anything ran it.
const script = "#!/bin/sh\ntouch \"$0.ran\"\n"

func looked(t *testing.T, o Options) string {
	t.Helper()
	d, err := Look(o)
	if err != nil {
		t.Fatal(err)
	}
	return found(d)
}

// TestEnvironments: packages are those of the environment that would be used, by their
// newest spelling, and an interpreter is not run.
func TestEnvironments(t *testing.T) {
	folder := alone(t)
	venv := filepath.Join(folder, "venv")
	tree(t, folder, map[string]string{
		"venv/bin/python3": script, "venv/bin/python": script, "venv/pyvenv.cfg": "home = " + filepath.Join(folder, "base", "bin") + "\nversion = 3.12.4\ninclude-system-site-packages = true\n",
		"venv/lib/python3.12/site-packages/torch-2.9.1+cpu.dist-info/METADATA":        "",
		"venv/lib/python3.12/site-packages/Comfy.Kitchen-0.2.40.dist-info/METADATA":   "",
		"venv/lib/python3.12/site-packages/convert_to_quant-1.3.4.dist-info/METADATA": "",
		"venv/lib/python3.12/site-packages/torchvision-1.0.dist-info/METADATA":        "",
		"base/lib/python3.12/site-packages/torch-1.0.dist-info/METADATA":              "",
		"base/lib/python3.12/site-packages/sdnq-0.2.8-py3.12.egg-info":                "",
		"base/bin/python3.12":       script,
		"base/lib/python3.12/os.py": "",
		"other/bin/python3":         script,
		"shims/python3":             script,
		"work/bin/python3":          script,
		"work/comfyui_version.py":   "__version__ = \"9.9.9\"\n", // alone, it is no ComfyUI
	})
	const want = " 3.12.4\ntorch 2.9.1+cpu\nsdnq 0.2.8\ncomfy-kitchen 0.2.40\nconvert-to-quant 1.3.4"
	t.Setenv("VIRTUAL_ENV", venv)
	if got := looked(t, Options{}); got != "$VIRTUAL_ENV"+want {
		t.Errorf("by the variable: %s", got)
	}
	t.Setenv("VIRTUAL_ENV", "")
	for _, path := range []string{venv, filepath.Join(venv, "bin", "python")} {
		if got := looked(t, Options{Python: path}); got != "as named"+want {
			t.Errorf("at %s: %s", path, got)
		}
	}
	if got := looked(t, Options{Python: filepath.Join(folder, "base", "bin", "python3.12")}); got != "as named 3.12\ntorch 1.0\nsdnq 0.2.8" {
		t.Errorf("of no virtual environment: %s", got)
	}
	t.Setenv("PATH", "bin"+string(os.PathListSeparator)+filepath.Join(folder, "other", "bin"))
	if got := looked(t, Options{}); os.PathSeparator == '/' && (!strings.Contains(got, "chooses one") || strings.Contains(got, "work")) {
		t.Errorf("a script on the PATH: %s", got)
	}
	for _, path := range []string{folder, filepath.Join(folder, "none"), filepath.Join(folder, "venv", "pyvenv.cfg"), filepath.Join(folder, "other")} {
		if _, err := Look(Options{Python: path}); err == nil {
			t.Errorf("%s is taken for a Python", path)
		}
	}
	_ = filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		if err != nil || strings.HasSuffix(path, ".ran") {
			t.Errorf("%s, %v: something was run", path, err)
		}
		return nil
	})
}

// TestShim: pyenv's script stands for the version that its files name, and for nothing
// outside of its folder.
func TestShim(t *testing.T) {
	if os.PathSeparator != '/' {
		t.Skip("pyenv is a program of Unix")
	}
	folder := alone(t)
	tree(t, folder, map[string]string{
		".pyenv/shims/python3": script, ".pyenv/version": "3.11.7\n", ".pyenv/versions/3.11.7/bin/python3": script, ".pyenv/versions/3.11.7/lib/python3.11/os.py": "",
		".pyenv/versions/3.11.7/lib/python3.11/site-packages/diffusers-0.42.1.dist-info/METADATA": "",
		".pyenv/versions/3.11.7/lib/python3.11/site-packages/sdnq-0.2.8.dist-info/METADATA":       "",
	})
	t.Setenv("PATH", filepath.Join(folder, ".pyenv", "shims"))
	want := "python3 on the PATH 3.11\nsdnq 0.2.8\ndiffusers 0.42.1\ndiffusers 0.42.1: the sdnq layout, every dtype"
	if got := looked(t, Options{}); got != want {
		t.Errorf("%s", got)
	}
	tree(t, folder, map[string]string{
		".python-version": "3.12.1\n", ".pyenv/versions/3.12.1/bin/python3": script, ".pyenv/versions/3.12.1/lib/python3.12/os.py": "",
	})
	if got := looked(t, Options{}); got != "python3 on the PATH 3.12" {
		t.Errorf("chosen by the folder above: %s", got)
	}
	tree(t, folder, map[string]string{"work/.python-version": "../../../work\n"})
	if got := looked(t, Options{}); !strings.Contains(got, "chooses one") {
		t.Errorf("a version outside: %s", got)
	}
}

// TestFolders: an application is known by several of its files, and its version is read
// and not run.
func TestFolders(t *testing.T) {
	folder := alone(t)
	comfy := map[string]string{"nodes.py": script, "folder_paths.py": "", "comfyui_version.py": "# x\n__version__ = \"0.28.1\"\n", ".venv/bin/python3": script, ".venv/pyvenv.cfg": "home = /nowhere\nversion = 3.12.1\n"}
	for name, text := range comfy {
		tree(t, folder, map[string]string{"ComfyUI/" + name: text})
	}
	got := looked(t, Options{})
	if want := "ComfyUI 3.12.1\ncomfyui 0.28.1: the comfy layout, every format but asym_w4a8_int8, awq_w4a16"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	tree(t, folder, map[string]string{"ComfyUI/custom_nodes/ComfyUI-tensorpress/__init__.py": ""})
	if got := looked(t, Options{}); !strings.HasSuffix(got, "; with ComfyUI-tensorpress every dtype of SDNQ's too") {
		t.Errorf("with the node: %q", got)
	}
	if _, err := Look(Options{Folders: map[string]string{"comfyui": folder}}); err == nil {
		t.Error("any folder is taken for ComfyUI")
	}
	tree(t, folder, map[string]string{"invokeai/.venv/bin/python": script, "invokeai/.venv/pyvenv.cfg": "home = /nowhere\nversion = 3.12.1\n", "invokeai/.venv/lib/python3.12/site-packages/invokeai-6.13.0.dist-info/METADATA": ""})
	if got := looked(t, Options{}); !strings.Contains(got, "invokeai 6.13.0: nothing quantized: from 6.14 on it does") {
		t.Errorf("an older InvokeAI: %q", got)
	}
}

// TestMemoryIsNeeded: a machine with less memory than a run takes is unfit.
func TestMemoryIsNeeded(t *testing.T) {
	alone(t)
	d, err := Look(Options{LeastMemory: 1 << 60})
	if err != nil || d.Memory.Available > 0 && len(d.Problems) == 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = Look(Options{LeastMemory: 1}); err != nil || len(d.Problems) > 0 {
		t.Errorf("%+v, %v", d, err)
	}
}
