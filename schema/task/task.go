package task

// Spec is the typed "with" of one kind of task. The set is closed: Kinds lists it.
type Spec interface {
	// Type is the kind's name, "runtime.write_env_file".
	Type() string
	// Resources says what the task with that id makes a node have. Names in
	// Service.RestartOn are still task ids or "package/<name>" here; NodeManifest.Resources
	// resolves them.
	Resources(id string) []Resource
}
