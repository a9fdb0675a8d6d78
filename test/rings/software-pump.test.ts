/** What only the pump in JavaScript meets: a kernel that throws. */
import { openSoftware } from './software-rig';
import { pages } from './scenarios';

test('a read that throws takes no doorbell with it', async () => {
  const { file, consumer } = openSoftware(undefined);
  const watch = file.watch.bind(file);
  const thrown: unknown[] = [];
  file.watch = (fd, events, callback) =>
    watch(fd, events, (ready) => {
      try {
        callback(ready);
      } catch (error) {
        thrown.push(error);
      }
    });
  const read = file.read.bind(file);
  let given = 0;
  file.read = (fd, bytes) => {
    if (given > 0) throw new Error('the second read');
    const length = read(fd, bytes);
    given += length;
    return length;
  };
  const waiting = consumer.next();
  file.deliver(pages(1, 1));
  const fault = await waiting;
  expect(thrown).toEqual([new Error('the second read')]);
  expect(fault.address).toBe(4096n);
  given = 0;
  expect(fault.respond('success')).toBe(true);
  expect(file.responses()).toMatchObject([{ cookie: 1 }]);
  consumer.close();
});
