package app

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kind is what an output is to whoever loads it.
type Kind string

// The kinds. Those of ComfyUI are files, named after what they hold.
const (
	diffusionModelFile Kind = "diffusion model"
	textEncoderFile    Kind = "text encoder"
	allInOne           Kind = "checkpoint"
	withoutTexts       Kind = "checkpoint without text encoders"
	vae                Kind = "VAE"
	controlnet         Kind = "controlnet"
	imageEncoder       Kind = "image encoder"
	styleModel         Kind = "style model"
	upscaler           Kind = "upscaler"
	latentUpscaler     Kind = "latent upscaler"
	audioEncoder       Kind = "audio encoder"
	modelPatch         Kind = "model patch"
	gligen             Kind = "GLIGEN"
	backgroundModel    Kind = "background removal"
	depthModel         Kind = "depth model"

	pipelineFolder     Kind = "pipeline"
	diffusersFolder    Kind = "folder of diffusers"
	transformersFolder Kind = "folder of transformers"
	sdnqFile           Kind = "file with a config beside it"

	unsure Kind = "unsure" // for which no application has a use
)

// Use is how an application loads a kind of output. In Call and in a text, {path} is the
// output, {folder} and {node} those of the row, and in Call {sdnq}, {class} and {dtype}
// what a call in Python needs.
type Use struct {
	Folder string // where the application looks for it, below its own
	Node   string // of ComfyUI, that loads it
	Call   string // in Python
	// ours is the node of ComfyUI-tensorpress that loads SDNQ's layers in it.
	ours string
	text string
	// asked says that it is for those alone who named the application.
	asked bool
}

const (
	inComfyUI = `put {path} into ComfyUI/{folder} and load it with "{node}"`
	thereNow  = `load {path} with "{node}" in ComfyUI`
	byOurNode = `, a node of ComfyUI-tensorpress`
	inPython  = `in Python: {call}`
)

// comfyUses are the folders and nodes of ComfyUI 0.33.0 (folder_paths.py, nodes.py and
// comfy_extras), and the nodes of ComfyUI-tensorpress (comfyui/ComfyUI-tensorpress).
var comfyUses = map[Kind]Use{
	diffusionModelFile: {Folder: "models/diffusion_models", Node: "Load Diffusion Model", ours: "Load Diffusion Model (tensorpress)", text: inComfyUI},
	textEncoderFile:    {Folder: "models/text_encoders", Node: "Load CLIP", ours: "Load CLIP (tensorpress)", text: inComfyUI},
	allInOne:           {Folder: "models/checkpoints", Node: "Load Checkpoint", ours: "Load Checkpoint (tensorpress)", text: inComfyUI},
	withoutTexts:       {Folder: "models/checkpoints", text: "put {path} into ComfyUI/{folder}"},
	vae:                {Folder: "models/vae", Node: "Load VAE", text: inComfyUI},
	controlnet:         {Folder: "models/controlnet", Node: "Load ControlNet Model", text: inComfyUI},
	imageEncoder:       {Folder: "models/clip_vision", Node: "Load CLIP Vision", text: inComfyUI},
	styleModel:         {Folder: "models/style_models", Node: "Load Style Model", text: inComfyUI},
	upscaler:           {Folder: "models/upscale_models", Node: "Load Upscale Model", text: inComfyUI},
	latentUpscaler:     {Folder: "models/latent_upscale_models", Node: "Load Latent Upscale Model", text: inComfyUI},
	audioEncoder:       {Folder: "models/audio_encoders", Node: "Load Audio Encoder", text: inComfyUI},
	modelPatch:         {Folder: "models/model_patches", Node: "Load Model Patch", text: inComfyUI},
	gligen:             {Folder: "models/gligen", Node: "Load GLIGEN Model", text: inComfyUI},
	backgroundModel:    {Folder: "models/background_removal", Node: "Load Background Removal Model", text: inComfyUI},
	depthModel:         {Folder: "models/geometry_estimation", Node: "Load Depth Anything 3", text: inComfyUI},
}

// diffusersUses and transformersUses are the calls that conformance/sdnq makes.
// diffusers widens what it loads to F32 unless it is told a dtype.
var diffusersUses = map[Kind]Use{
	pipelineFolder:  {Call: "import {sdnq}torch, diffusers; diffusers.DiffusionPipeline.from_pretrained({path}, torch_dtype={dtype})", text: inPython},
	diffusersFolder: {Call: "import {sdnq}torch, diffusers; diffusers.{class}.from_pretrained({path}, torch_dtype={dtype})", text: inPython},
}

var transformersUses = map[Kind]Use{
	transformersFolder: {Call: "import {sdnq}transformers; transformers.{class}.from_pretrained({path})", text: inPython},
}

// sdnextUses: it lists folders with a model_index.json there.
var sdnextUses = map[Kind]Use{
	pipelineFolder: {Folder: "models/Diffusers", text: "put {path} into {folder} of SD.Next, which lists it among its models", asked: true},
}

var (
	invokeAIUses = map[Kind]Use{pipelineFolder: inInvokeAI, diffusersFolder: inInvokeAI, transformersFolder: inInvokeAI, sdnqFile: inInvokeAI}
	inInvokeAI   = Use{text: "add {path} in InvokeAI's model manager, as a local path", asked: true}
)

// Output is what was written, as far as it decides who loads it and how.
type Output struct {
	Path string // as a user would name it; of one file, that file
	// Place is where that is, absolute; "" if it is not on disk.
	Place  string
	Layout string // "" where nothing is quantized
	For    *App   // that was named, nil for none
	// Comfy is what ComfyUI takes a single file for, nil if it is none or not known.
	Comfy *ComfyModel
	// NeedsNode says that some layers are SDNQ's in ComfyUI's layout.
	NeedsNode bool
	// Folder says that it is a model folder, or a pipeline with an index of its own.
	Folder, Pipeline bool
	// Diffusers and Transformers name the class of the model that a folder's config names.
	Diffusers, Transformers string
	Dtype                   string // "bfloat16", or what else PyTorch calls that of plain weights
}

// Next is what is to be done with an output.
type Next struct {
	App string
	Use
	Text string
}

// Way is how an output is loaded, wherever it will lie: it can be kept until then.
type Way struct {
	App       string `json:"app"`
	Kind      Kind   `json:"kind"`
	Layout    string `json:"layout,omitempty"`     // as in [Output]
	NeedsNode bool   `json:"needs_node,omitempty"` // likewise
	Class     string `json:"class,omitempty"`      // of the model, in Python
	Dtype     string `json:"dtype,omitempty"`      // PyTorch's name
}

// WayOf returns how an output is loaded, nil where that is not known.
func WayOf(o Output) *Way {
	for _, a := range apps {
		if o.For != nil && o.For != a && !(o.For.python && a.python) {
			continue
		}
		if o.Layout != "" && o.Layout != a.Layout {
			continue
		}
		kind := o.kind(a)
		u, ok := a.uses[kind]
		if !ok || u.asked && o.For != a || o.NeedsNode && u.ours == "" {
			continue
		}
		return &Way{a.Name, kind, o.Layout, o.NeedsNode, o.Diffusers + o.Transformers, o.Dtype}
	}
	return nil
}

// NextFor returns what to do with an output, nil where that is not known.
func NextFor(o Output) *Next { return WayOf(o).At(o.Path, o.Place) }

// At returns what to do with the output once it lies at a path, as in [Output], nil where
// that is not known. What was kept may have been changed by anybody: nothing of it is said
// but words that this program knows, and names.
func (l *Way) At(path, place string) *Next {
	if l == nil {
		return nil
	}
	i := slices.IndexFunc(apps, func(a *App) bool { return a.Name == l.App })
	if i < 0 || l.Class != "" && !IsClass(l.Class) || l.Dtype != "" && !dtypeName.MatchString(l.Dtype) {
		return nil
	}
	u, ok := apps[i].uses[l.Kind]
	if !ok || strings.Contains(u.Call, "{class}") && l.Class == "" || l.NeedsNode && u.ours == "" {
		return nil
	}
	if l.NeedsNode {
		u.Node = u.ours
	}
	o := Output{Path: path, Place: place, Layout: l.Layout, NeedsNode: l.NeedsNode, Diffusers: l.Class, Dtype: l.Dtype}
	return &Next{l.App, u.filled(o), u.said(o)}
}

// kind is that of an output for an application, "" if none is sure.
func (o Output) kind(a *App) Kind {
	switch {
	case a.Layout == "comfy" && o.Folder:
		return ""
	case a.Layout == "comfy":
		return o.Comfy.kind(o)
	case o.Pipeline:
		return pipelineFolder
	case o.Folder && o.Diffusers != "":
		return diffusersFolder
	case o.Folder && o.Transformers != "":
		return transformersFolder
	case !o.Folder && o.Layout == a.Layout:
		return sdnqFile
	}
	return ""
}

// className matches what may stand in a call as a class: a config may name anything.
var className = regexp.MustCompile(`^[A-Z][A-Za-z0-9_]*$`)

// dtypeName matches what may stand there as a dtype of PyTorch's.
var dtypeName = regexp.MustCompile(`^[a-z][a-z0-9]*$`)

// IsClass reports whether a name that a config gives is one of a class.
func IsClass(name string) bool { return className.MatchString(name) }

// filled is u with a call for that output.
func (u Use) filled(o Output) Use {
	imports := ""
	if o.Layout == "sdnq" {
		imports = "sdnq, "
	}
	u.Call = strings.NewReplacer(
		"{sdnq}", imports, "{path}", strconv.Quote(o.Path), "{dtype}", "torch."+o.Dtype, "{class}", o.Diffusers+o.Transformers,
	).Replace(u.Call)
	return u
}

// said says in one line how an output is used.
func (u Use) said(o Output) string {
	text := u.text
	if text == inComfyUI && within(o.Place, u.Folder) {
		text = thereNow
	}
	if o.NeedsNode {
		text += byOurNode
	}
	return strings.NewReplacer("{path}", o.Path, "{folder}", u.Folder, "{node}", u.Node, "{call}", u.filled(o).Call).Replace(text)
}

// within reports whether a file lies somewhere below a folder of that name.
func within(place, folder string) bool {
	return strings.Contains(filepath.ToSlash(filepath.Dir(place))+"/", "/"+folder+"/")
}

// misread are the reasons for which ComfyUI does not load plain tensors either.
var misread = []string{unnamed, unknownNames, clipNames}

// kind is what ComfyUI loads an output as, "" where that is not sure.
func (m *ComfyModel) kind(o Output) Kind {
	switch {
	case m == nil, slices.Contains(misread, m.why), m.err != nil && m.why == "":
		return ""
	case o.Layout == "", m.err == nil, o.NeedsNode && m.why == renamed:
		return m.home
	}
	return ""
}
