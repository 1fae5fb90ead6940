// SPDX-License-Identifier: Apache-2.0
// The field numbers of profile.proto that are read or written here.

/// `perftools.profiles.Profile`.
package enum ProfileField {
  package static let sampleType: UInt32 = 1
  package static let sample: UInt32 = 2
  package static let mapping: UInt32 = 3
  package static let location: UInt32 = 4
  package static let function: UInt32 = 5
  package static let string: UInt32 = 6
  package static let timeNanoseconds: UInt32 = 9
  package static let durationNanoseconds: UInt32 = 10
  package static let periodType: UInt32 = 11
  package static let period: UInt32 = 12
  package static let comment: UInt32 = 13
  package static let defaultSampleType: UInt32 = 14
}

package enum ValueTypeField {
  package static let type: UInt32 = 1
  package static let unit: UInt32 = 2
}

package enum SampleField {
  package static let location: UInt32 = 1
  package static let value: UInt32 = 2
  package static let label: UInt32 = 3
}

package enum LabelField {
  package static let key: UInt32 = 1
  package static let string: UInt32 = 2
  package static let number: UInt32 = 3
  package static let unit: UInt32 = 4
}

package enum MappingField {
  package static let id: UInt32 = 1
  package static let start: UInt32 = 2
  package static let limit: UInt32 = 3
  package static let fileOffset: UInt32 = 4
  package static let fileName: UInt32 = 5
  package static let buildID: UInt32 = 6
  package static let hasFunctions: UInt32 = 7
  package static let hasFileNames: UInt32 = 8
  package static let hasLineNumbers: UInt32 = 9
  package static let hasInlineFrames: UInt32 = 10
}

package enum LocationField {
  package static let id: UInt32 = 1
  package static let mapping: UInt32 = 2
  package static let address: UInt32 = 3
  package static let line: UInt32 = 4
}

package enum LineField {
  package static let function: UInt32 = 1
  package static let line: UInt32 = 2
}

package enum FunctionField {
  package static let id: UInt32 = 1
  package static let name: UInt32 = 2
  package static let systemName: UInt32 = 3
  package static let fileName: UInt32 = 4
}
