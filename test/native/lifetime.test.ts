import { describeLinux } from '../linux/has-addon';
import { runChild } from './child';

describeLinux('the end', () => {
  test('of memory and mappings, freed or dropped', () => {
    expect(runChild('collect')).toEqual({ end: 0, stdout: 'done\n', stderr: '' });
  });

  test('of workers, with everything open', () => {
    expect(runChild('workers')).toEqual({ end: 0, stdout: 'done\n', stderr: '' });
  });

  describe('of the process, with everything open', () => {
    test('by exit', () => {
      expect(runChild('exit', 'exit now')).toEqual({ end: 7, stdout: '', stderr: '' });
      expect(runChild('exit', 'exit')).toEqual({ end: 7, stdout: 'called\n', stderr: '' });
    });

    test('by a signal', () => {
      expect(runChild('exit', 'signal').end).toBe('SIGTERM');
    });

    test('for want of work: a watch that was unreferenced is none', () => {
      expect(runChild('exit', 'idle')).toEqual({ end: 0, stdout: '', stderr: '' });
    });

    test('by what a callback throws', () => {
      const { end, stderr } = runChild('exit', 'thrown');
      expect(end).toBe(1);
      expect(stderr).toContain('Error: thrown by the callback');
    });

    test('not by what a callback throws and a handler catches', () => {
      expect(runChild('exit', 'caught')).toEqual({
        end: 0,
        stdout: 'called\ncaught: thrown by the callback\n',
        stderr: '',
      });
    });
  });
});
