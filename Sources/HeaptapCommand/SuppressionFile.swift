// SPDX-License-Identifier: Apache-2.0
// A file of suppressions, as commands are given it.

import HeapModel
import ProcessControl

extension Suppressions {
  init(file path: String) throws {
    let text: String
    do throws(SystemError) {
      text = String(decoding: try contents(ofFile: path), as: UTF8.self)
    } catch {
      throw Failure("cannot read '\(path.plainText)': \(error.words)")
    }
    do throws(Suppressions.ListError) {
      try self.init(list: text)
    } catch {
      throw Failure("line \(error.line) of '\(path.plainText)': \(error.description.plainText)")
    }
  }
}
