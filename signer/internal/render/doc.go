// Package render turns a fleet into one manifest per node. It is pure: the same
// fleet gives the same manifests, byte for byte, and nothing but the fleet
// counts.
//
// For a node, the profiles whose selector matches its labels are taken in the
// order of their names, and then the node's own file. Values of the fleet are
// overlaid by those of the profiles and then of the node; tasks with the
// id of an earlier one take its place; packages are united. Then every
// scalar of the tasks is interpolated (see Interpolate), the tasks are strictly
// decoded as what they are now, and the manifest as a whole is checked. An error
// points at the line that somebody wrote, in a profile or a node, and names a
// node that it was found for.
package render
